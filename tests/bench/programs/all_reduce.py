"""Time an all_reduce of float32 in every way there is, in alternating bursts, and print JSON (rank 0, under mpirun).

all_reduce.py FOLDER [LARGEST_MB]

The ways: dtrain's communicators; raw MPI, in one call, in blocking chunks of 4 MB and through a shared window in
which each rank sums its slice; PyTorch's gloo, if it is installed, whose ranks meet in FOLDER. `"65536 mpi"` is the
time of 64 KB in seconds, each burst's that of the slowest rank; `"65536 mpi / raw"` is the best raw way's time over
it, `"65536 mpi / gloo"` gloo's. What else a machine does makes bursts longer and none shorter: the 10th percentile is
taken.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dtrain.dist.communicator import Communicator
from dtrain.dist.create import COMMUNICATORS, create_communicator
from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.mpi import load_mpi

os.environ.setdefault("OMPI_MCA_osc", "^ucx")  # which complains of each window
MPI: Any = load_mpi()
WORLD = MPI.COMM_WORLD
FLOAT = np.dtype(np.float32)
CHUNK = (4 << 20) // 4
BLOCK = (256 << 10) // 4  # of the shared window's sums: stays in a core's cache
SIZE_S = 6.0  # what the bursts of a size may take, at least five of each way
PERCENTILE = 10
SIZES = [(64 << 10) * 4**k for k in range(7)]

# all_reduce of the first n elements of its array, and that array.
Way = tuple[Callable[[int], None], np.ndarray]


def raw_ways(array: np.ndarray) -> Iterator[tuple[str, Way]]:
    """Yield the ways of MPI itself."""

    def one_call(n: int) -> None:
        WORLD.Allreduce(MPI.IN_PLACE, array[:n], op=MPI.SUM)

    def chunks(n: int) -> None:
        for start in range(0, n, CHUNK):
            WORLD.Allreduce(MPI.IN_PLACE, array[start : min(n, start + CHUNK)], op=MPI.SUM)

    yield "raw one call", (one_call, array)
    yield "raw chunks", (chunks, array)
    yield "raw window", raw_window(array.size)


def raw_window(size: int) -> Way:
    """Return the way through a shared window: each rank sums its slice over all ranks and gives it to all."""
    window = MPI.Win.Allocate_shared(size * 4, 4, comm=WORLD)
    window.Lock_all()
    ranks = range(WORLD.size)
    arrays = [np.frombuffer(window.Shared_query(rank)[0], FLOAT) for rank in ranks]

    def fence() -> None:
        window.Sync()
        WORLD.Barrier()
        window.Sync()

    def through_window(n: int) -> None:
        fence()
        end = n * (WORLD.rank + 1) // WORLD.size
        for start in range(n * WORLD.rank // WORLD.size, end, BLOCK):
            block = slice(start, min(end, start + BLOCK))
            total = arrays[0][block] + arrays[1][block]
            for rank in ranks[2:]:
                total += arrays[rank][block]
            for rank in ranks:
                arrays[rank][block] = total
        fence()

    return through_window, arrays[WORLD.rank]


def gloo_way(array: np.ndarray, folder: str) -> Way:
    """Return gloo's way. Its ranks meet through a file in `folder`."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    store = f"file://{os.path.abspath(folder)}/gloo-{WORLD.size}"
    distributed.init_process_group("gloo", store, rank=WORLD.rank, world_size=WORLD.size)
    tensor = torch.from_numpy(array)
    return (lambda n: distributed.all_reduce(tensor[:n])), array


def make(kind: str) -> Communicator | None:
    """Return one of dtrain's communicators; None if it is not for these ranks."""
    try:
        made = COMMUNICATORS[kind]()
    except (LaunchError, ClusterError):
        return None
    return made if made.world_size == WORLD.size else None


def our_ways(size: int, made: dict[str, Communicator]) -> Iterator[tuple[str, Way]]:
    """Yield the ways of dtrain's communicators, each with an array in its own memory."""
    for kind, communicator in made.items():
        array = communicator.allocate(size, FLOAT)
        yield kind, (lambda n, c=communicator, a=array: c.all_reduce(a[:n]), array)


def check(name: str, way: Way, n: int) -> None:
    """End the benchmark if the sums are wrong."""
    all_reduce, array = way
    array[:n] = WORLD.rank + np.arange(n) % 7
    WORLD.Barrier()
    all_reduce(n)
    expected = np.arange(n) % 7 * WORLD.size + WORLD.size * (WORLD.size - 1) // 2
    assert (array[:n] == expected).all(), f"{name} sums wrongly"
    array[:n] = 0


def time_ways(ways: dict[str, Way], n: int) -> dict[str, np.ndarray]:
    """Return the seconds of a call in each burst of each way, of the slowest rank."""
    # One call takes as long as ranks take to leave the barrier that it begins with.
    num_calls = int(np.clip((4 << 20) // (n * 4), 1, 50))
    began, rounds = time.perf_counter(), []
    while WORLD.bcast(len(rounds) < 5 or time.perf_counter() - began < SIZE_S):
        rounds.append(time_round(ways, n, num_calls, len(rounds)))
    return dict(zip(ways, np.array(rounds).T, strict=True))


def time_round(ways: dict[str, Way], n: int, num_calls: int, number: int) -> np.ndarray:
    """Return the seconds of a call in a burst of each way, of the slowest rank, beginning with way `number`."""
    seconds = np.zeros(len(ways))
    for k in range(len(ways)):
        row = (k + number) % len(ways)
        all_reduce, _ = list(ways.values())[row]
        all_reduce(n)  # each begins with its own array in the cache, as far as that holds it
        WORLD.Barrier()
        began = time.perf_counter()
        for _ in range(num_calls):
            all_reduce(n)
        seconds[row] = (time.perf_counter() - began) / num_calls
    WORLD.Allreduce(MPI.IN_PLACE, seconds, op=MPI.MAX)
    return seconds


def report(num_bytes: int, seconds: dict[str, np.ndarray], ours: dict[str, Communicator]) -> dict[str, float]:
    """Return the figures of a size."""
    typical = {name: float(np.percentile(bursts, PERCENTILE)) for name, bursts in seconds.items()}
    peers = {"raw": min(typical[name] for name in typical if name.startswith("raw "))}
    if "gloo" in typical:
        peers["gloo"] = typical["gloo"]
    figures = {f"{num_bytes} {name}": typical[name] for name in typical}
    for kind in ours:
        figures |= {f"{num_bytes} {kind} / {peer}": peers[peer] / typical[kind] for peer in peers}
    return figures


def main() -> None:
    """Measure and print."""
    communicator = create_communicator("mpi", os.environ)  # checks that mpirun and MPI belong together
    largest = (int(sys.argv[2]) if len(sys.argv) > 2 else 256) << 20
    sizes = [size for size in SIZES if size <= largest]
    plain = np.zeros(largest // 4, FLOAT)
    made = {kind: found for kind in COMMUNICATORS if (found := make(kind)) is not None}
    ways = dict(our_ways(largest // 4, made)) | dict(raw_ways(plain))
    if importlib.util.find_spec("torch") is not None:
        ways["gloo"] = gloo_way(plain, sys.argv[1])
    figures: dict[str, float] = {}
    for num_bytes in sizes:
        for name, way in ways.items():
            check(name, way, num_bytes // 4)
        figures |= report(num_bytes, time_ways(ways, num_bytes // 4), made)
    if WORLD.rank == 0:
        print(json.dumps(figures), flush=True)
    communicator.barrier()


if __name__ == "__main__":
    main()
