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
from dtrain.data.hdf5_library import SIGNATURE, signature_offsets

Result = TypeVar("Result")

CAFFEMODEL, SOLVERSTATE = ".caffemodel", ".solverstate"

MAX_MESSAGE_BYTES = 2**31 - 1
"""The largest file that Caffe reads: its protobuf counts the bytes of a message in an int."""

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
        raise UserError(f"{path}: file must be a binary {kind}, got HDF5")
    try:
        check_kind(path, kind, kind_of(view))
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
        raise UserError(f"{path}: file must exist, got no such file{_neighbours(Path(path), kind)}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: file must be a {kind}, got a directory") from None
    except OSError as error:
        raise UserError(f"{path}: file must be readable, got: {error.strerror}") from None


def is_hdf5(view: memoryview) -> bool:
    """Tell whether a file is HDF5, by its signature, as Caffe does."""
    return any(view[start : start + len(SIGNATURE)] == SIGNATURE for start in signature_offsets(len(view)))


def contains_hdf5(path: str | os.PathLike[str]) -> bool | None:
    """Tell whether the file at `path` is HDF5; None when it can't be read."""
    try:
        return is_hdf5(map_file(path, CAFFEMODEL))
    except UserError:
        return None


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


def check_kind(path: str | os.PathLike[str], kind: str, found: str | None) -> None:
    """Raise UserError, with what to do, if a file is of the other kind than it should be; None is not known."""
    if found not in (kind, None):
        raise UserError(f"{path}: file must be a {kind}, {_MIX_UPS[kind]}")


def check_message_size(path: str | os.PathLike[str], parts: Sequence[Part]) -> None:
    """Refuse to write a file that Caffe could not read back; raises UserError."""
    size = num_bytes(parts)
    if size > MAX_MESSAGE_BYTES:
        raise UserError(
            f"{path}: a binary snapshot must be at most {MAX_MESSAGE_BYTES} bytes (2 GB), got {size}; "
            "Caffe's protobuf reads no larger message: set snapshot_format: HDF5, which has no such limit"
        )


def _neighbours(path: Path, kind: str) -> str:
    """Name the files of the same ending that lie where the missing one was looked for."""
    folder = path.parent
    ending = path.name[path.name.rfind(kind) :] if kind in path.name else path.suffix
    if not folder.is_dir():
        return f"; its folder {folder} does not exist either"
    names = sorted(other.name for other in folder.iterdir() if ending and other.name.endswith(ending))
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) + (", …" if len(names) > _MAX_NAMES_SHOWN else "")
    return f"; {folder} has: {shown}" if names else ""
