"""Open a binary snapshot file, and say in one sentence what is wrong with one that cannot be read.

Every .caffemodel and .solverstate that is read passes here: the file is mapped into memory, nothing is
copied, and an array that views the mapping keeps it alive. The mapping outlives a later snapshot of the
same name, since that one replaces the file by a rename.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dtrain.core.errors import UserError
from dtrain.core.snapshots import wire
from dtrain.core.snapshots.blob_proto import Part, num_bytes

Result = TypeVar("Result")

CAFFEMODEL, SOLVERSTATE = ".caffemodel", ".solverstate"

MAX_MESSAGE_BYTES = 2**31 - 1
"""The largest file that Caffe reads: its protobuf counts the bytes of a message in an int."""

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MIX_UPS = {
    CAFFEMODEL: "got a .solverstate; give the .caffemodel beside it, or resume from it with --snapshot",
    SOLVERSTATE: "got a .caffemodel; give the .solverstate beside it, or start from it with --weights",
}
_MAX_NAMES_SHOWN = 5


def read_message(path: str | os.PathLike[str], kind: str, parse: Callable[[memoryview], Result]) -> Result:
    """Map a file and return what `parse` makes of it.

    Arguments:
        path: the file.
        kind: what it should be: CAFFEMODEL or SOLVERSTATE.
        parse: takes the bytes of the whole file; may raise WireError.
    Raises:
        UserError: the file cannot be read, is of the other kind, or is damaged.
    """
    view = map_file(path, kind)
    if is_hdf5(view):
        raise UserError(
            f"{path}: file must be a binary {kind}, got HDF5; save it with snapshot_format: BINARYPROTO"
        )
    try:
        if kind_of(view) not in (kind, None):
            raise UserError(f"{path}: file must be a {kind}, {_MIX_UPS[kind]}")
        return parse(view)
    except wire.WireError as error:
        raise UserError(
            f"{path}: file must be a whole {kind}, got {error}; it is truncated, damaged or of another kind: "
            "use an earlier snapshot"
        ) from None


def map_file(path: str | os.PathLike[str], kind: str) -> memoryview:
    """Return the bytes of a whole file, read-only and read from the disk as they are looked at.

    Arguments:
        path: the file.
        kind: what it should be, for error messages.
    Raises:
        UserError: it is missing, a directory, not readable, or empty.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UserError(f"{path}: file must be a {kind}, got an empty file; use an earlier snapshot")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise UserError(f"{path}: file must exist, got no such file{_neighbours(Path(path))}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: file must be a {kind}, got a directory") from None
    except OSError as error:
        raise UserError(f"{path}: file must be readable, got: {error.strerror}") from None


def is_hdf5(view: memoryview) -> bool:
    """Tell whether a file is HDF5, by its first bytes, as Caffe does."""
    return view[: len(_HDF5_MAGIC)] == _HDF5_MAGIC


def kind_of(view: memoryview) -> str | None:
    """Tell a .caffemodel from a .solverstate by the fields that only one of them can have.

    Field 1 is a net's name (a string) or a solver's iter (an int); field 100 is a net's layer.

    Returns:
        CAFFEMODEL, SOLVERSTATE, or None when neither field is there.
    """
    for field in wire.walk(view):
        if field.number == 1 and field.wire_type == wire.VARINT:
            return SOLVERSTATE
        if field.number in (1, 100):
            return CAFFEMODEL
    return None


def check_message_size(path: str | os.PathLike[str], parts: Sequence[Part]) -> None:
    """Refuse to write a file that Caffe could not read back; raises UserError."""
    size = num_bytes(parts)
    if size > MAX_MESSAGE_BYTES:
        raise UserError(
            f"{path}: a binary snapshot must be at most {MAX_MESSAGE_BYTES} bytes (2 GB), got {size}; "
            "Caffe's protobuf reads no larger message: make the net smaller or set snapshot_diff: false"
        )


def _neighbours(path: Path) -> str:
    """Name the files of the same kind that lie where the missing one was looked for."""
    folder = path.parent
    if not folder.is_dir():
        return f"; its folder {folder} does not exist either"
    names = sorted(other.name for other in folder.iterdir() if other.suffix == path.suffix != "")
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) + (", …" if len(names) > _MAX_NAMES_SHOWN else "")
    return f"; {folder} has: {shown}" if names else ""
