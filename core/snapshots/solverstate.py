"""Read and write .solverstate files: the iteration and the solver's history, as protobuf's SolverState.

Part of the last stage of the flow prototxt → graph → net → solver → communicator → snapshot; the weights
are in the .caffemodel that `learned_net` names. Follows SGDSolver::SnapshotSolverStateToBinaryProto and
RestoreSolverStateFromBinaryProto of Caffe's sgd_solver.cpp.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from dtrain.core.snapshots import wire
from dtrain.core.snapshots.blob_proto import Array, Part, read_blob, write_blob
from dtrain.core.snapshots.commit import commit_file
from dtrain.core.snapshots.message_file import SOLVERSTATE, check_message_size, read_message

# Field numbers of SolverState.
_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP = 1, 2, 3, 4


@dataclass(frozen=True)
class SolverState:
    """What Caffe keeps of a solver.

    Attributes:
        iter: number of updates done.
        learned_net: path of the .caffemodel with the weights; "" when there is none.
        current_step: how many stepvalues of the multistep policy have passed.
        history: the update rule's arrays, float32 or float64: one a learnable param, or two for AdaDelta and
            Adam, the second kind after all of the first.
    """

    iter: int
    learned_net: str
    current_step: int
    history: tuple[Array, ...]


def read_solverstate(path: str | os.PathLike[str]) -> SolverState:
    """Read a .solverstate; the history's arrays are read-only views of the file.

    Raises:
        UserError: the file is missing, unreadable, damaged, or a .caffemodel.
    """
    return read_message(path, SOLVERSTATE, _read_state)


def write_solverstate(path: str | os.PathLike[str], state: SolverState) -> None:
    """Write a .solverstate that Caffe loads; the file appears whole or not at all.

    Raises:
        UserError: the disk refuses, or the file would be larger than Caffe can read (2 GB).
    """
    commit_file(path, encode_solverstate(path, state))


def encode_solverstate(path: str | os.PathLike[str], state: SolverState) -> list[Part]:
    """Return the bytes of a .solverstate, in order: headers, and the history's arrays themselves.

    The arrays must not change until they are written.

    Raises:
        UserError: there are more bytes than Caffe can read; `path` is named.
    """
    parts: list[Part] = [
        wire.integer_field(_ITER, state.iter),
        wire.bytes_field(_LEARNED_NET, os.fsencode(state.learned_net)),
        wire.integer_field(_CURRENT_STEP, state.current_step),
    ]
    for history in state.history:
        parts += write_blob(_HISTORY, history)
    check_message_size(path, parts)
    return parts


def _read_state(view: memoryview) -> SolverState:
    iteration = current_step = 0
    learned_net = ""
    history: list[Array] = []
    for field in wire.walk(view):
        if field.number == _ITER:
            iteration = field.signed()
        elif field.number == _LEARNED_NET:
            # A path is bytes to the system; what is not UTF-8 in it still names its file.
            learned_net = os.fsdecode(bytes(field.message()))
        elif field.number == _HISTORY:
            history.append(read_blob(field).values)
        elif field.number == _CURRENT_STEP:
            current_step = field.signed()
    return SolverState(iteration, learned_net, current_step, tuple(history))
