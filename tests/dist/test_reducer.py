"""The reducer on ranks of every kind of communicator: sums in closed form, whatever is started when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.reducer import Reducer
from dtrain.dist.reduction import Reduction
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from dtrain.dist.topology import topology_from_hosts
from dtrain.dist.wire import Bfloat16Wire, Wire
from tests.played.cuda import Cuda
from tests.played.cupy import PlayedCupy
from tests.played.nccl import join_nccl

OnAllRanks = Callable[[Callable[[Communicator], None]], None]

BUCKETS = [slice(0, 16), slice(16, 9000), slice(9000, 9001), slice(9001, 9001)]
NUM_VALUES = 9010  # the last 9 are in no bucket


def fill(arena: np.ndarray, rank: int) -> None:
    arena[...] = np.arange(NUM_VALUES) % 17 + rank


def expected(world_size: int) -> np.ndarray:
    """Return the sum of what `fill` fills in, over all ranks."""
    return np.arange(9001) % 17 * world_size + world_size * (world_size - 1) // 2


@pytest.mark.parametrize("started_early", [0, 1, 3, 4])
@pytest.mark.parametrize("wire", [None, Bfloat16Wire()], ids=["float32", "bfloat16"])
def test_reducer_sums_each_bucket_and_nothing_else(
    on_all_ranks: OnAllRanks, started_early: int, wire: Wire | None
) -> None:
    def body(communicator: Communicator) -> None:
        arena = communicator.allocate(NUM_VALUES, np.dtype(np.float32))
        reducer = Reducer(communicator, arena, BUCKETS, [str(bucket) for bucket in BUCKETS], wire)
        for _ in range(3):
            fill(arena, communicator.rank)
            for end in range(started_early + 1):
                reducer.start_to(end)
                reducer.move_on()
            assert reducer.num_started == started_early
            sums, seen = expected(communicator.world_size), []
            for k in reducer.complete():
                seen.append(k)
                bucket = BUCKETS[k]
                np.testing.assert_array_equal(arena[bucket], sums[bucket])
            assert seen == [0, 1, 2, 3]
            assert reducer.num_started == 0
            np.testing.assert_array_equal(arena[9001:], np.arange(9001, NUM_VALUES) % 17 + communicator.rank)
        assert communicator.activity.doing == "summing bucket 3 of 4 (slice(9001, 9001, None))"
        assert communicator.activity.collective == ""

    on_all_ranks(body)


def test_reducer_lets_other_calls_pass_while_buckets_travel(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        arena = communicator.allocate(NUM_VALUES, np.dtype(np.float32))
        reducer = Reducer(communicator, arena, BUCKETS, ["", "", "", ""])
        fill(arena, communicator.rank)
        reducer.start_to(2)
        own = np.array([communicator.rank + 1.0])  # as SyncBN does within backward
        communicator.all_reduce(own)
        assert own[0] == communicator.world_size * (communicator.world_size + 1) / 2
        for _ in reducer.complete():
            pass
        np.testing.assert_array_equal(arena[:9001], expected(communicator.world_size))

    on_all_ranks(body)


class Halved(Wire):
    """A user's compression: sends every second value and keeps the others for the next time."""

    dtype = np.dtype(np.float32)

    def __init__(self) -> None:
        self.kept: dict[int, np.ndarray] = {}

    def size(self, num_values: int) -> int:
        return (num_values + 1) // 2

    def compress(self, bucket: int, values: np.ndarray, wire: np.ndarray) -> None:
        values += self.kept.get(bucket, 0)
        wire[...] = values[::2]
        self.kept[bucket] = values.copy()
        self.kept[bucket][::2] = 0

    def decompress(self, bucket: int, wire: np.ndarray, values: np.ndarray) -> None:
        values[...] = 0
        values[::2] = wire


def test_reducer_with_a_compression_of_ones_own_sends_what_that_says(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        if communicator.world_size == 1:
            return  # nothing travels
        arena = communicator.allocate(NUM_VALUES, np.dtype(np.float32))
        wire = Halved()
        reducer = Reducer(communicator, arena, BUCKETS, ["", "", "", ""], wire)
        for turn in range(2):
            fill(arena, communicator.rank)
            for _ in reducer.complete():
                pass
            sums = expected(communicator.world_size)
            np.testing.assert_array_equal(arena[16:9000:2], sums[16:9000:2])
            assert not arena[17:9000:2].any()
            np.testing.assert_array_equal(
                wire.kept[1][1::2], (np.arange(17, 9000, 2) % 17 + communicator.rank) * (turn + 1)
            )

    on_all_ranks(body)


class Slow(SingleCommunicator):
    """A rank on two hosts whose reductions are done when they have been looked at 20 times, in all."""

    def __init__(self) -> None:
        super().__init__()
        self.topology = topology_from_hosts(["a", "b"], 0)
        self.num_looks = 0

    def _start_all_reduce(self, array: np.ndarray) -> Reduction:
        return Looked(self)


class Looked(Reduction):
    def __init__(self, communicator: Slow) -> None:
        self._communicator = communicator

    def test(self) -> bool:
        self._communicator.num_looks += 1
        return self._communicator.num_looks >= 20

    def wait(self) -> None:
        assert self.test(), "the reduction has not moved on by itself"


def test_reducer_between_hosts_moves_on_while_its_rank_computes() -> None:
    communicator = Slow()
    arena = communicator.allocate(NUM_VALUES, np.dtype(np.float32))
    reducer = Reducer(communicator, arena, BUCKETS, ["", "", "", ""])
    for _ in range(2):
        communicator.num_looks = 0
        reducer.start_to(1)
        deadline = time.monotonic() + 30
        while communicator.num_looks < 20 and time.monotonic() < deadline:
            time.sleep(0.001)  # a layer's backward
        assert list(reducer.complete()) == [0, 1, 2, 3]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("wire", [None, Bfloat16Wire], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("hosts", [1, 2])
def test_reducer_on_gpus_sums_without_the_host_also_in_a_graph(
    monkeypatch: pytest.MonkeyPatch, num_ranks: int, wire: Callable[[], Wire] | None, hosts: int
) -> None:
    cupy = PlayedCupy("cupy")
    cupy.cuda = Cuda(num_ranks)
    join_nccl(monkeypatch, cupy)
    before = set(threading.enumerate())
    monkeypatch.setattr(Reducer, "_move_on", lambda self: pytest.fail("GPUs move on by themselves"))

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        arena = communicator.allocate_on_device(NUM_VALUES, np.dtype(np.float32))
        reducer = Reducer(communicator, arena, BUCKETS, ["", "", "", ""], wire() if wire else None)

        def round_() -> None:
            for end in range(3):
                reducer.start_to(end)
                reducer.move_on()
            assert list(reducer.complete()) == [0, 1, 2, 3]

        values = np.zeros(NUM_VALUES, np.float32)
        fill(values, communicator.rank)
        arena.set(values)
        round_()
        np.testing.assert_array_equal(arena.get()[:9001], expected(num_ranks))
        with cupy.cuda.Stream(non_blocking=True) as stream:
            pool = cupy.cuda.MemoryPool()
            with cupy.cuda.using_allocator(pool.malloc):
                stream.begin_capture()
                round_()
                graph = stream.end_capture()
        for _ in range(2):
            arena.set(values)
            graph.launch()
            np.testing.assert_array_equal(arena.get()[:9001], expected(num_ranks))
            np.testing.assert_array_equal(arena.get()[9001:], values[9001:])

    run_ranks(num_ranks, body, hosts=[f"host{rank % hosts}" for rank in range(num_ranks)])
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "reducer"]


def test_reducer_that_nobody_has_any_more_ends_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.dist.reducer.IDLE_S", 0.01)
    communicator = Slow()
    reducer = Reducer(
        communicator, communicator.allocate(9010, np.dtype(np.float32)), BUCKETS, ["", "", "", ""]
    )
    threads = [thread for thread in threading.enumerate() if thread.name == "reducer"]
    assert threads
    del reducer
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
