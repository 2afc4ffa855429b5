"""Read and write .solverstate.h5 files: the iteration and the solver's history, in HDF5.

The same SolverState as in `solverstate`, in the form of snapshot_format: HDF5. Follows
SGDSolver::SnapshotSolverStateToHDF5 and RestoreSolverStateFromHDF5 of Caffe's sgd_solver.cpp: the datasets iter
and current_step (one int32 each), learned_net (a string), and history/0, history/1, …
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dtrain.core.snapshots.blob_proto import Part
from dtrain.core.snapshots.hdf5_file import Dataset, Group, StructureError, array_of, read_hdf5
from dtrain.core.snapshots.hdf5_layout import Hdf5Layout
from dtrain.core.snapshots.message_file import SOLVERSTATE
from dtrain.core.snapshots.solverstate import SolverState

_ITER, _LEARNED_NET, _CURRENT_STEP, _HISTORY = "iter", "learned_net", "current_step", "history"


def encode_hdf5_state(path: str | os.PathLike[str], state: SolverState) -> list[Part]:
    """Return the bytes of a .solverstate.h5, in order: headers, and the history's arrays themselves.

    The arrays must not change until they are written.

    Raises:
        UserError: h5py is not installed; `path` is named.
    """
    layout = Hdf5Layout(Path(path))
    layout.root[_ITER] = np.array([state.iter], np.int32)
    layout.root[_CURRENT_STEP] = np.array([state.current_step], np.int32)
    if state.learned_net:
        layout.add_text(layout.root, _LEARNED_NET, os.fsencode(state.learned_net))
    history = layout.root.create_group(_HISTORY)
    for i, array in enumerate(state.history):
        layout.add_array(history, str(i), array)
    return layout.finish()


def read_hdf5_state(path: str | os.PathLike[str]) -> SolverState:
    """Read a .solverstate.h5; the history's arrays are read-only views of the file.

    Raises:
        UserError: h5py is not installed, or the file is missing, unreadable, damaged, or a .caffemodel.
    """
    return read_hdf5(path, SOLVERSTATE, _read_state)


def _read_state(root: Group, view: memoryview) -> SolverState:
    if _ITER not in root or _HISTORY not in root:
        raise StructureError(f"no /{_ITER} and /{_HISTORY}")
    history = root[_HISTORY]
    return SolverState(
        _read_integer(root[_ITER]),
        _read_text(root[_LEARNED_NET]) if _LEARNED_NET in root else "",
        _read_integer(root[_CURRENT_STEP]) if _CURRENT_STEP in root else 0,
        tuple(array_of(history[str(i)], view) for i in range(len(history))),
    )


def _read_integer(dataset: Dataset) -> int:
    if dataset.size != 1 or dataset.dtype.kind not in "iu":
        raise StructureError(f"no single whole number in {dataset.name}")
    return int(np.asarray(dataset[()]).item())


def _read_text(dataset: Dataset) -> str:
    """Return a string of fixed or variable length; a path is bytes to the system, in any encoding."""
    text = np.asarray(dataset[()]).item()
    if not isinstance(text, bytes):
        raise StructureError(f"no text in {dataset.name}")
    return os.fsdecode(text)
