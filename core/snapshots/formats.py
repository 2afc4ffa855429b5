"""Choose a snapshot's file format; the only place that knows which there are.

Part of the snapshot stage: `store` writes and reads through the SnapshotFormat that it gets here. Adding a
format takes its encode and read functions and a row in FORMATS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import Part
from dtrain.core.snapshots.caffemodel import LayerRecord, LayerWeights, encode_caffemodel, read_caffemodel
from dtrain.core.snapshots.hdf5_model import encode_hdf5_model, read_hdf5_model
from dtrain.core.snapshots.hdf5_state import encode_hdf5_state, read_hdf5_state
from dtrain.core.snapshots.message_file import contains_hdf5
from dtrain.core.snapshots.solverstate import SolverState, encode_solverstate, read_solverstate


@dataclass(frozen=True)
class SnapshotFormat:
    """How the two files of a snapshot are named, written and read.

    Attributes:
        words: what Caffe's log calls such a file.
        suffix: what follows .caffemodel and .solverstate in the files' names.
        encode_model: (path, net's name, layers) → the file's bytes.
        encode_state: (path, state) → the file's bytes.
        read_model: path → layers.
        read_state: path → state.
    """

    words: str
    suffix: str
    encode_model: Callable[[Path, str, Iterable[LayerRecord]], list[Part]]
    encode_state: Callable[[Path, SolverState], list[Part]]
    read_model: Callable[[str | os.PathLike[str]], list[LayerWeights]]
    read_state: Callable[[str | os.PathLike[str]], SolverState]


BINARY = SnapshotFormat(
    "binary proto file", "", encode_caffemodel, encode_solverstate, read_caffemodel, read_solverstate
)
HDF5 = SnapshotFormat(
    "HDF5 file", ".h5", encode_hdf5_model, encode_hdf5_state, read_hdf5_model, read_hdf5_state
)

FORMATS = {"BINARYPROTO": BINARY, "HDF5": HDF5}
"""By the names of SolverParameter.SnapshotFormat."""


def format_named(name: str) -> SnapshotFormat:
    """Return the format of a solver's snapshot_format; raises UserError for one that is not there."""
    if name not in FORMATS:
        raise UserError(f"snapshot_format must be one of {', '.join(FORMATS)}, got {name}")
    return FORMATS[name]


def format_of(path: str | os.PathLike[str]) -> SnapshotFormat:
    """Return the format of a file by its name, as Caffe chooses for a .solverstate."""
    name = os.fspath(path)
    return next((known for known in FORMATS.values() if known.suffix and name.endswith(known.suffix)), BINARY)


def format_inside(path: str | os.PathLike[str]) -> SnapshotFormat:
    """Return the format of a file by its content, as Caffe chooses for weights; by its name if it can't be read."""
    is_hdf5 = contains_hdf5(path)
    if is_hdf5 is None:
        return format_of(path)
    return HDF5 if is_hdf5 else BINARY
