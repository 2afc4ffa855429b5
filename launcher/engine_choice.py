"""Which engine a rank computes by: the options, the solver file, and what is installed; and what is said of it.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: a command takes the GPU (gpus.py),
then the engine.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Sequence

from dtrain.core.engines import Engine, Promises, create_engine
from dtrain.dist.topology import Topology
from dtrain.launcher.job import Job
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


def enter_promises(args: argparse.Namespace, solver: caffe_pb2.SolverParameter) -> None:
    """Let the solver ask for what --strict-float32 and --deterministic ask for, beside what its file does."""
    extra = solver.dtrain_param
    extra.strict_float32 |= args.strict_float32
    extra.deterministic |= args.deterministic


def asked_promises(args: argparse.Namespace) -> Promises:
    """Return what the options ask for, of a command that has no solver."""
    return Promises(args.strict_float32, args.deterministic)


def take_engine(job: Job, name: str | None, precision: str, promises: Promises) -> Engine:
    """Create the engine of each rank, for the GPU that it has taken, and say once what is to be said. Collective.

    name: --engine. Raises as job.together does.
    """
    notes: list[str] = []
    engine = job.together(
        lambda: create_engine(name, precision, on_gpu=job.on_gpu, promises=promises, tell=notes.append)
    )
    job.warn(notes)
    names = job.communicator.all_gather_bytes(engine.name.encode())
    if job.is_first:
        for line in differing_engines(job.communicator.topology, [name.decode() for name in names]):
            log.warning(line)
    return engine


def differing_engines(topology: Topology, names: Sequence[str]) -> list[str]:
    """Return the line on ranks that compute by different engines, if they do. names: of the engines, by rank."""
    ranks_of: dict[str, list[str]] = defaultdict(list)
    for rank, name in enumerate(names):
        ranks_of[name].append(topology.describe(rank))
    if len(ranks_of) == 1:
        return []
    found = "; ".join(f"{name} on {', '.join(ranks)}" for name, ranks in ranks_of.items())
    return [
        f"ranks compute by different engines, {found}: params stay equal, but the slowest sets the pace and results"
        " are those of no one engine; --engine takes the same everywhere"
    ]
