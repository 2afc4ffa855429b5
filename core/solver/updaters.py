"""Which updater a run has: the host's, or a GPU's where the params are there."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.engines import Engine
from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param
from dtrain.core.solver.gpu_updater import GpuUpdater
from dtrain.core.solver.updater import Updater
from dtrain.core.tensor import HOST
from dtrain.proto import caffe_pb2


def make_updater(
    solver: caffe_pb2.SolverParameter, params: Sequence[Param], arena: Arena, engine: Engine
) -> Updater:
    """Return what updates `params`, of which those that learn are in `arena`. engine: whose memory that may be."""
    if arena.memory is HOST:
        return Updater(solver, params, arena)
    return GpuUpdater(solver, params, arena, engine.xp)
