"""Lay out an HDF5 file as parts: what h5py writes around the arrays, and the arrays' own memory.

The writing half of HDF5 in the snapshot stage; `hdf5_model` and `hdf5_state` build on it. h5py lays the file out
in a memory that only keeps the bytes that are written: groups and headers. The arrays' places are reserved and
never filled. So an HDF5 file is parts as a binary one is: no array is copied, the size is known before the first
byte is written, and `commit` writes, checksums and publishes either kind alike.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from dtrain.core.snapshots.blob_proto import Array, Part, num_bytes
from dtrain.core.snapshots.hdf5_file import load_library
from dtrain.data.hdf5_library import VERSIONS

Group = Any
"""An h5py.Group; h5py has no type information."""

_PAGE_BYTES = 4096
_TYPES = {np.dtype(np.float32): "IEEE_F32LE", np.dtype(np.float64): "IEEE_F64LE"}


class Hdf5Layout:
    """An HDF5 file while it is laid out: `root` takes groups and small datasets, `add_array` the large ones.

    Arguments:
        path: the file's name to be, for error messages; nothing is written there.
    Raises:
        UserError: h5py is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._h5py = load_library(path)
        self._memory = SparseMemory()
        self._arrays: list[tuple[int, Array]] = []
        self.root: Group = self._h5py.File(self._memory, "w", libver=VERSIONS)

    def add_array(self, group: Group, name: str, array: Array) -> None:
        """Reserve the place of `array`, float32 or float64, as the dataset `name`; it is not read yet."""
        if array.dtype not in _TYPES:
            raise TypeError(f"a blob must be float32 or float64, got {array.dtype}")
        h5py = self._h5py
        plan = self._plan()
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(array.shape) if array.shape else h5py.h5s.create(h5py.h5s.SCALAR)
        value_type = getattr(h5py.h5t, _TYPES[array.dtype])
        dataset = h5py.h5d.create(group.id, name.encode(), value_type, space, plan)
        if array.size:
            self._arrays.append((dataset.get_offset(), array))

    def add_text(self, group: Group, name: str, text: bytes) -> None:
        """Write a C string of fixed length as the dataset `name`, as H5LTmake_dataset_string does."""
        h5py = self._h5py
        text_type = h5py.h5t.C_S1.copy()
        text_type.set_size(len(text) + 1)
        text_type.set_strpad(h5py.h5t.STR_NULLTERM)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.h5d.create(group.id, name.encode(), text_type, space, self._plan())
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(text, f"S{len(text) + 1}"))

    def _plan(self) -> Any:
        """Return how to make a dataset: without the time, so that equal contents make equal files."""
        plan = self._h5py.h5p.create(self._h5py.h5p.DATASET_CREATE)
        plan.set_obj_track_times(False)
        return plan

    def finish(self) -> list[Part]:
        """Return the file's bytes, in order; the layout can't be used after this."""
        self.root.file.close()
        parts: list[Part] = []
        position = 0
        for offset, array in sorted(self._arrays, key=lambda place: place[0]):
            parts += [self._memory.between(position, offset), array]
            position = offset + array.nbytes
        parts.append(self._memory.between(position, self._memory.size))
        assert num_bytes(parts) == self._memory.size, "arrays must lie in the file one behind another"
        return parts


class SparseMemory(io.RawIOBase):
    """A file in memory that takes space only where it is written; elsewhere it reads as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self.size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset` from the start, the position or the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the size, that of the position by default; h5py only ever enlarges."""
        self.size = self._position if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        """Write at the position and move behind."""
        view = memoryview(data).cast("B")
        for page, start, end, taken in self._pieces(self._position, len(view)):
            content = self._pages.setdefault(page, bytearray(_PAGE_BYTES))
            content[start:end] = view[taken : taken + end - start]
        self._position += len(view)
        self.size = max(self.size, self._position)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on, up to the end."""
        view = memoryview(buffer).cast("B")
        content = self.between(self._position, min(self._position + len(view), self.size))
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def between(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`."""
        content = bytearray(max(end - start, 0))
        for page, first, last, taken in self._pieces(start, len(content)):
            if page in self._pages:
                content[taken : taken + last - first] = self._pages[page][first:last]
        return bytes(content)

    @staticmethod
    def _pieces(position: int, num_bytes: int) -> list[tuple[int, int, int, int]]:
        """Cut a range at the pages' ends: (page, start and end in it, bytes before it)."""
        pieces = []
        taken = 0
        while taken < num_bytes:
            page, start = divmod(position + taken, _PAGE_BYTES)
            end = min(_PAGE_BYTES, start + num_bytes - taken)
            pieces.append((page, start, end, taken))
            taken += end - start
        return pieces
