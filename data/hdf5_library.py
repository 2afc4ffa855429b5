"""The one place that imports h5py: HDF5 files opened for reading or writing, with errors as sentences.

h5py is optional; what data layers and snapshots read and write in HDF5 goes through here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from dtrain.data.errors import DataError

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What h5py raises for a file that is damaged: its own errors are Python's.
LIBRARY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)

# What files of any HDF5 since 1.8 can be: Caffe's readers are that old.
VERSIONS = ("earliest", "v108")

_FIRST_USER_BLOCK = 512


def signature_offsets(size: int) -> Iterator[int]:
    """Yield where a file of `size` bytes may have HDF5's signature: at its start, or behind a block of a user's own,
    which ends at byte 512, 1024, 2048 …
    """
    start = 0
    while start < size:
        yield start
        start = max(2 * start, _FIRST_USER_BLOCK)


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Return whether the file has HDF5's signature; False where it can't be read."""
    try:
        with open(path, "rb") as file:
            for start in signature_offsets(os.fstat(file.fileno()).st_size):
                file.seek(start)
                if file.read(len(SIGNATURE)) == SIGNATURE:
                    return True
    except OSError:
        pass
    return False


def load_h5py(path: str | os.PathLike[str]) -> Any:
    """Return the module h5py. Raises DataError in the name of the file `path` when it is not installed."""
    try:
        import h5py
    except ImportError:
        raise DataError(
            f"{os.fspath(path)}: HDF5 files need h5py, which is not installed: pip install 'dtrain[hdf5]'"
        ) from None
    return h5py


def open_hdf5(path: str | os.PathLike[str], mode: Literal["r", "w"] = "r", **options: Any) -> h5py.File:
    """Open an HDF5 file.

    Arguments:
        path: the file; with mode "w" it is made, and replaced if it is there.
        options: further arguments of h5py.File, such as rdcc_nbytes, the bytes of the cache of chunks.
    Raises DataError when h5py is not installed, or the file is missing, no HDF5 or damaged.
    """
    h5py = load_h5py(path)
    if mode == "r" and not os.path.isfile(path):
        got = "a folder" if os.path.isdir(path) else "no such file"
        raise DataError(f"{os.fspath(path)}: HDF5 file must exist, got {got}")
    if mode == "r" and not is_hdf5(path):
        raise DataError(f"{os.fspath(path)}: must be an HDF5 file, got other bytes")
    with hdf5_errors(path):
        return h5py.File(path, mode, libver=VERSIONS, **options)


@contextmanager
def hdf5_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what h5py raises in the with block into DataErrors in the name of `path`."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        if hasattr(error, "exit_code"):  # dtrain's own
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{os.fspath(path)}: HDF5 file must be intact, got: {words}") from None
