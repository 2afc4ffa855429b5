"""How fast each communicator sums here: what ``dtrain doctor --bench`` measures, and its table.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: what will summing gradients
cost, and is the communicator that dtrain chooses the fastest?
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dtrain.dist.communicator import Communicator
from dtrain.dist.create import COMMUNICATORS, ranks_and_hosts
from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.topology import Topology
from dtrain.launcher.job import open_job

KILOBYTE, MEGABYTE = 2**10, 2**20
HALF_BYTES = 16 * MEGABYTE  # the size that is measured in float16 too
_SIZES = [64 * KILOBYTE * 4**k for k in range(7)]  # 64 KB to 256 MB
_ROUNDS_S = 0.3  # what the rounds of a size may take, at least _MIN_ROUNDS of them
_MIN_ROUNDS, _MAX_ROUNDS = 3, 200


@dataclass(frozen=True)
class Case:
    """One all_reduce: an array of so many bytes on each rank."""

    num_bytes: int
    dtype: str = "float32"

    @property
    def title(self) -> str:
        """Return ``64 KB float32``."""
        size = f"{self.num_bytes // KILOBYTE} KB"
        if self.num_bytes >= MEGABYTE:
            size = f"{self.num_bytes // MEGABYTE} MB"
        return f"{size} {self.dtype}"


@dataclass(frozen=True)
class Measured:
    """What a kind of communicator took: seconds of each case; or why it can't be used here."""

    kind: str
    seconds: tuple[float, ...] = ()
    reason: str = ""


def cases_up_to(largest_bytes: int) -> list[Case]:
    """Return the cases of at most `largest_bytes`, one size in float16 too."""
    cases = []
    for num_bytes in _SIZES:
        if num_bytes <= largest_bytes:
            cases.append(Case(num_bytes))
            cases += [Case(num_bytes, "float16")] if num_bytes == HALF_BYTES else []
    return cases


def measure_world(largest_bytes: int) -> None:
    """Measure the communicators among the ranks of this mpirun; rank 0 prints the table. Collective."""
    cases = cases_up_to(largest_bytes)
    with open_job(None) as job:
        rows = measure_all(job.communicator, cases)
        if job.is_first:
            chosen = job.communicator
            print("\n".join(table_lines(chosen.topology, chosen.name, cases, rows)))
            print(f"dtrain chooses {chosen.name} ({chosen.reason})", flush=True)


def measure_all(world: Communicator, cases: Sequence[Case]) -> list[Measured]:
    """Measure every kind of communicator that this world's ranks can make, one after the other. Collective."""
    return [measure_kind(world, kind, cases) for kind in COMMUNICATORS]


def measure_kind(world: Communicator, kind: str, cases: Sequence[Case]) -> Measured:
    """Make the communicator called `kind` and measure its all_reduce, or say why not. Collective."""
    world.activity.doing = f'measuring the communicator "{kind}"'
    communicator, reason = _make(kind)
    if communicator is not None and communicator.world_size != world.world_size:
        reason = f"is for {communicator.world_size} rank, not {world.world_size}"
    reasons = [text.decode() for text in world.all_gather_bytes(reason.encode())]
    if any(reasons) or communicator is None:
        return Measured(kind, reason=next(filter(None, reasons)))
    seconds = tuple(time_all_reduce(communicator, case) for case in cases)
    communicator.close()
    return Measured(kind, seconds)


def _make(kind: str) -> tuple[Communicator | None, str]:
    """Return the communicator, or None and the reason."""
    try:
        return COMMUNICATORS[kind](), ""
    except (LaunchError, ClusterError) as error:
        return None, "; ".join(str(error).splitlines())


def time_all_reduce(communicator: Communicator, case: Case) -> float:
    """Return the median seconds of an all_reduce, each round's those of the slowest rank. Collective.

    The array lies where the solver's gradients do: in the communicator's own memory, of NCCL the device's.
    """
    dtype = np.dtype(case.dtype)
    allocate = communicator.allocate
    if isinstance(communicator, NcclCommunicator):
        allocate = communicator.allocate_on_device
    array = allocate(case.num_bytes // dtype.itemsize, dtype)

    def one_round() -> float:
        communicator.barrier()
        began = time.perf_counter()
        communicator.all_reduce(array)
        return time.perf_counter() - began

    one_round()  # touches the memory, opens connections
    slowest = communicator.all_gather(np.array([one_round()])).max()
    num_rounds = int(np.clip(_ROUNDS_S / max(slowest, 1e-9), _MIN_ROUNDS, _MAX_ROUNDS))
    seconds = communicator.all_gather(np.array([one_round() for _ in range(num_rounds)]))
    return float(np.median(seconds.max(axis=0)))


def table_lines(
    topology: Topology, chosen: str, cases: Sequence[Case], rows: Sequence[Measured]
) -> list[str]:
    """Return the table: a line for each case, two columns for each kind, and what could not be measured.

    Arguments:
        chosen: the kind that dtrain takes for this world by itself.
    """
    measured = [row for row in rows if not row.reason]
    heads = [f"{row.kind}{' (chosen)' if row.kind == chosen else ''}" for row in measured]
    lines = [
        f"all_reduce of {ranks_and_hosts(topology)}; GB/s are an array's bytes over the time",
        _line("", heads),
    ]
    for k, case in enumerate(cases):
        lines.append(_line(case.title, [_cell(case, row.seconds[k]) for row in measured]))
    return lines + [f"{row.kind}: {row.reason}" for row in rows if row.reason]


def _cell(case: Case, seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms {case.num_bytes / seconds / 1e9:6.2f} GB/s"


def _line(title: str, cells: Sequence[str]) -> str:
    return f"{title:<16}" + "".join(f"{cell:>26}" for cell in cells)
