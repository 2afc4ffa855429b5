"""Open an HDF5 snapshot file, and say in one sentence what is wrong with one that cannot be read.

The reading half of HDF5 in the snapshot stage, as `message_file` is for binary files. The file is mapped into
memory and h5py reads its groups and headers through the mapping; an array that lies there as plain floats is a
view of it, so no weight is copied.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import Array
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE, check_kind, map_file
from dtrain.data.errors import DataError
from dtrain.data.hdf5_library import LIBRARY_ERRORS, load_h5py

Result = TypeVar("Result")
Group = Any
Dataset = Any
"""h5py's; it has no type information."""

# What h5py and numpy raise where a file is damaged.
_DAMAGE = (*LIBRARY_ERRORS, IndexError, OverflowError, MemoryError)
_MAX_PACKING = 1032  # deflate makes nothing smaller than that; a shape that claims more is damaged


class StructureError(Exception):
    """Say what an HDF5 file lacks to be a snapshot's file; becomes a UserError."""


def read_hdf5(
    path: str | os.PathLike[str], kind: str, parse: Callable[[Group, memoryview], Result]
) -> Result:
    """Map an HDF5 file and return what `parse` makes of it.

    Arguments:
        path: the file.
        kind: what it should be: CAFFEMODEL or SOLVERSTATE.
        parse: takes the root group and the bytes of the whole file; may raise StructureError.
    Raises:
        UserError: h5py is not installed, or the file cannot be read, is of the other kind, or is damaged.
    """
    view = map_file(path, kind)
    h5py = load_library(path)
    try:
        with h5py.File(_MappedFile(view), "r") as root:
            check_kind(path, kind, _kind_of(root))
            return parse(root, view)
    except (StructureError, *_DAMAGE) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: file must be a whole {kind} in HDF5, got {words}; it is truncated, damaged or of "
            "another kind: use an earlier snapshot"
        ) from None


def load_library(path: str | os.PathLike[str]) -> Any:
    """Return the module h5py. Raises UserError in the name of the file `path` when it is not installed."""
    try:
        return load_h5py(path)
    except DataError as error:
        raise UserError(error.problem) from None


def _kind_of(root: Group) -> str | None:
    """Tell a .caffemodel.h5 from a .solverstate.h5 by what only one of them has; None for other files."""
    if "iter" in root and "history" in root:
        return SOLVERSTATE
    return CAFFEMODEL if "data" in root and is_group(root["data"]) else None


def members_of(group: Group) -> Iterator[tuple[str, Any]]:
    """Yield the names and members of a group, sorted by name; raises StructureError for a link to nothing."""
    for name, member in group.items():
        if member is None:
            raise StructureError(f"a link to nothing, {name} in {group.name}")
        yield name, member


def is_group(member: Any) -> bool:
    """Tell a group from a dataset."""
    return hasattr(member, "items")


def array_of(dataset: Dataset, view: memoryview) -> Array:
    """Return a dataset's values, read-only: a view of the file where they lie there as plain floats.

    Integers and floats of other sizes become float64.

    Arguments:
        dataset: any of the file's.
        view: the bytes of the whole file.
    Raises:
        StructureError: the dataset holds no numbers, or more than the file can.
    """
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise StructureError(f"no numbers in {dataset.name}")
    size = math.prod(map(int, dataset.shape))  # in Python's integers, which do not overflow
    if size * dataset.dtype.itemsize > len(view) * _MAX_PACKING:
        raise StructureError(f"{dataset.name} of shape {dataset.shape}, which the file is too small for")
    is_float = dataset.dtype.kind == "f" and dataset.dtype.itemsize in (4, 8)
    offset = dataset.id.get_offset() if is_float and dataset.chunks is None else None
    if offset is not None:
        flat = np.frombuffer(view, dataset.dtype, size, offset)
        return flat.reshape(dataset.shape)
    values = np.array(dataset[()], dataset.dtype if is_float else np.float64)
    values.flags.writeable = False
    return values


class _MappedFile(io.RawIOBase):
    """A mapped file as h5py wants its files: what was verified is what is read."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        piece = self._view[self._position : self._position + len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
