"""The calls by which Caffe's C++ reads HDF5 (util/hdf5.cpp), made in the HDF5 library that comes with h5py."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

_READ_ONLY, _DEFAULT = 0, 0
_BY_NAME, _ASCENDING = 0, 0


class H5lt:
    """An open file; `path` is a dataset's, such as b"data/conv/0"."""

    def __init__(self, path: Path) -> None:
        self._core, self._lite = _libraries()
        self._core.H5Fopen.restype = self._core.H5Gopen2.restype = ctypes.c_int64
        self._core.H5Lget_name_by_idx.restype = ctypes.c_ssize_t
        self.file = ctypes.c_int64(
            self._core.H5Fopen(str(path).encode(), _READ_ONLY, ctypes.c_int64(_DEFAULT))
        )
        assert self.file.value >= 0, "H5Fopen failed"

    def names(self, group: bytes) -> list[bytes]:
        """Name the links of a group, by H5Lget_name_by_idx."""
        found: list[bytes] = []
        while True:
            buffer = ctypes.create_string_buffer(100)
            where = (self.file, group, _BY_NAME, _ASCENDING, ctypes.c_uint64(len(found)), buffer)
            with _quiet(self._core):
                length = self._core.H5Lget_name_by_idx(*where, ctypes.c_size_t(100), ctypes.c_int64(_DEFAULT))
            if length < 0:
                return found
            found.append(buffer.value)

    def floats(self, path: bytes) -> np.ndarray:
        """Read an array by H5LTget_dataset_ndims, H5LTget_dataset_info and H5LTread_dataset_float."""
        num_axes, value_class = ctypes.c_int(), ctypes.c_int()
        assert self._lite.H5LTget_dataset_ndims(self.file, path, ctypes.byref(num_axes)) >= 0
        dims = (ctypes.c_uint64 * num_axes.value)()
        assert self._lite.H5LTget_dataset_info(self.file, path, dims, ctypes.byref(value_class), None) >= 0
        assert value_class.value == h5py.h5t.FLOAT
        values = np.empty(tuple(dims), np.float32)
        assert self._lite.H5LTread_dataset_float(self.file, path, values.ctypes.data_as(ctypes.c_void_p)) >= 0
        return values

    def integer(self, path: bytes) -> int:
        """Read one number by H5LTread_dataset_int."""
        value = ctypes.c_int()
        assert self._lite.H5LTread_dataset_int(self.file, path, ctypes.byref(value)) >= 0
        return value.value

    def string(self, path: bytes) -> bytes:
        """Read a C string by H5LTget_dataset_info and H5LTread_dataset_string."""
        size, value_class = ctypes.c_size_t(), ctypes.c_int()
        info = (ctypes.byref(value_class), ctypes.byref(size))
        assert self._lite.H5LTget_dataset_info(self.file, path, None, *info) >= 0
        buffer = ctypes.create_string_buffer(size.value)
        assert self._lite.H5LTread_dataset_string(self.file, path, buffer) >= 0
        return buffer.value

    def close(self) -> None:
        self._core.H5Fclose(self.file)


@contextmanager
def opened(path: Path) -> Iterator[H5lt]:
    """Open a file for the with block."""
    file = H5lt(path)
    try:
        yield file
    finally:
        file.close()


@contextmanager
def _quiet(core: ctypes.CDLL) -> Iterator[None]:
    """Keep the library from printing the error that ends a list of names."""
    core.H5Eset_auto2(ctypes.c_int64(_DEFAULT), None, None)
    yield


def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    folder = Path(h5py.__file__).parent.with_name("h5py.libs")
    names = [next(iter(folder.glob(f"{name}-*.so*")), None) for name in ("libhdf5", "libhdf5_hl")]
    if None in names:
        pytest.skip("this h5py brings no HDF5 library of its own")
    core, lite = (ctypes.CDLL(str(name)) for name in names)
    return core, lite
