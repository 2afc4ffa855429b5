"""One suite for the reductions of all communicators: many under way, tested at different times on each rank, and
other calls while they are. test_mpi.py runs this file under mpirun.

Each array holds (rank + 1)·(k % 7 + 1) at element k, so that the sum over N ranks is (k % 7 + 1)·N·(N + 1)/2.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.dist.communicator import BFLOAT16, DTYPES, Array, Communicator
from dtrain.dist.reduction import DONE

OnAllRanks = Callable[[Callable[[Communicator], None]], None]

# None, less than a slot (256 bytes, see conftest.py), less than a buffer (2048), less than a chunk (4096), more.
SIZES = [0, 1, 60, 500, 900, 5003]
NUM_UNDER_WAY = 20


def counted(size: int, dtype: np.dtype[Any], factor: int) -> Array:
    """Return factor·(k % 7 + 1) for element k."""
    return ((np.arange(size) % 7 + 1) * factor).astype(dtype)


def check_sum(array: Array, communicator: Communicator) -> None:
    """Compare with the sum in closed form, which every dtype holds exactly up to 4 ranks."""
    factor = communicator.world_size * (communicator.world_size + 1) // 2
    np.testing.assert_array_equal(array, counted(array.size, array.dtype, factor))


def own(size: int, dtype: np.dtype[Any], communicator: Communicator) -> Array:
    return counted(size, dtype, communicator.rank + 1)


def own_in_arena(size: int, dtype: np.dtype[Any], communicator: Communicator) -> Array:
    """Return own(), beginning at element 3 of an arena."""
    array = communicator.allocate(size + 5, dtype)[3 : 3 + size]
    array[...] = own(size, dtype, communicator)
    return array


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", [own, own_in_arena])
def test_start_all_reduce_then_wait_gives_the_sum(
    on_all_ranks: OnAllRanks, make: Callable[..., Array], dtype: np.dtype[Any]
) -> None:
    def body(communicator: Communicator) -> None:
        for size in SIZES:
            array = make(size, dtype, communicator)
            reduction = communicator.start_all_reduce(array)
            reduction.wait()
            assert reduction.test()
            reduction.wait()
            check_sum(array, communicator)

    on_all_ranks(body)


def start_many(communicator: Communicator, seed: int) -> list[tuple[Any, Array]]:
    """Start reductions of sizes, dtypes and memories that `seed` draws, alike on all ranks."""
    draw = random.Random(seed)
    started = []
    for _ in range(NUM_UNDER_WAY):
        make = draw.choice([own, own_in_arena])
        array = make(draw.choice(SIZES), draw.choice(DTYPES), communicator)
        started.append((communicator.start_all_reduce(array), array))
    return started


@pytest.mark.parametrize("seed", range(2))
def test_reductions_tested_at_random_are_done_in_the_order_of_their_starts(
    on_all_ranks: OnAllRanks, seed: int
) -> None:
    def body(communicator: Communicator) -> None:
        started = start_many(communicator, seed)
        draw = random.Random(f"{seed} {communicator.rank}")  # another pattern on each rank
        for _ in range(draw.randrange(40)):
            draw.choice(started)[0].test()
        while not started[draw.randrange(NUM_UNDER_WAY)][0].test():
            done = [reduction.test() for reduction, _ in reversed(started)][::-1]
            assert done == sorted(done, reverse=True)
        waited = draw.sample(started, NUM_UNDER_WAY)
        for reduction, _ in waited:
            reduction.wait()
        for _, array in started:
            check_sum(array, communicator)

    on_all_ranks(body)


def call_small_all_reduce(communicator: Communicator) -> None:
    array = own(7, np.dtype(np.float32), communicator)
    communicator.all_reduce(array)
    check_sum(array, communicator)


def call_large_all_reduce(communicator: Communicator) -> None:
    array = own(20_000, np.dtype(np.float64), communicator)
    communicator.all_reduce(array)
    check_sum(array, communicator)


def call_all_reduce_of_halves(communicator: Communicator) -> None:
    array = own(3000, BFLOAT16, communicator)
    communicator.all_reduce(array)
    check_sum(array, communicator)


def call_broadcast(communicator: Communicator) -> None:
    root = communicator.world_size - 1
    array = own(3000, np.dtype(np.float32), communicator)
    communicator.broadcast(array, root)
    np.testing.assert_array_equal(array, counted(3000, array.dtype, root + 1))


def call_all_gather(communicator: Communicator) -> None:
    gathered = communicator.all_gather(own(3000, np.dtype(np.int64), communicator))
    for rank, array in enumerate(gathered):
        np.testing.assert_array_equal(array, counted(3000, array.dtype, rank + 1))


def call_all_gather_bytes(communicator: Communicator) -> None:
    gathered = communicator.all_gather_bytes(b"x" * communicator.rank)
    assert gathered == [b"x" * rank for rank in range(communicator.world_size)]


def call_allocate(communicator: Communicator) -> None:
    arena = communicator.allocate(1000, np.dtype(np.float32))
    assert not arena.any()
    assert arena.ctypes.data % 64 == 0


def call_start_all_reduce(communicator: Communicator) -> None:
    array = own(3000, np.dtype(np.float32), communicator)
    communicator.start_all_reduce(array).wait()
    check_sum(array, communicator)


CALLS = {
    "small all_reduce": call_small_all_reduce,
    "large all_reduce": call_large_all_reduce,
    "all_reduce of halves": call_all_reduce_of_halves,
    "broadcast": call_broadcast,
    "all_gather": call_all_gather,
    "all_gather_bytes": call_all_gather_bytes,
    "barrier": Communicator.barrier,
    "allocate": call_allocate,
    "start_all_reduce": call_start_all_reduce,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_call_while_reductions_are_under_way_leaves_both_right(
    on_all_ranks: OnAllRanks, call: Callable[[Communicator], None]
) -> None:
    def body(communicator: Communicator) -> None:
        for size in (60, 5003):
            arrays = [own(size, dtype, communicator) for dtype in DTYPES]
            started = [communicator.start_all_reduce(array) for array in arrays]
            # Some ranks are already waiting when others come to the call.
            if communicator.rank % 2:
                started[-1].wait()
            call(communicator)
            call(communicator)
            for reduction, array in zip(started, arrays, strict=True):
                reduction.wait()
                check_sum(array, communicator)

    on_all_ranks(body)


def test_all_reduce_of_places_that_differ_between_ranks_gives_the_sum(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        arena = communicator.allocate(5003 + communicator.world_size, np.dtype(np.float32))
        places = [
            arena[communicator.rank :][:5003],  # another place on each rank
            arena[:5003]
            if communicator.rank
            else np.empty(5003, np.float32),  # the first rank's is elsewhere
        ]
        for array in places:
            array[...] = own(5003, array.dtype, communicator)
            communicator.all_reduce(array)
            check_sum(array, communicator)

    on_all_ranks(body)


def test_all_reduce_in_one_of_two_arenas_leaves_the_rest_alone(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        arenas = [communicator.allocate(9000, np.dtype(np.float32)) for _ in range(2)]
        for arena in arenas:
            arena[...] = -1
            communicator.barrier()  # nobody reduces before all have filled theirs in
        inside = arenas[1][1000:6003]
        inside[...] = own(5003, inside.dtype, communicator)
        communicator.all_reduce(inside)
        check_sum(inside, communicator)
        for rest in (arenas[0], arenas[1][:1000], arenas[1][6003:]):
            assert (rest == -1).all()

    on_all_ranks(body)


def sequential_sum(rows: Array) -> Array:
    """Add the rows one after the other in float32, as IEEE 754 says; each addition is rounded."""
    total = rows[0].astype(np.float32)
    for row in rows[1:]:
        total = (total.astype(np.float64) + row.astype(np.float64)).astype(np.float32)
    return total


@pytest.mark.parametrize("dtype", ["float32", "float16", BFLOAT16], ids=str)
@pytest.mark.parametrize("is_started", [False, True], ids=["all_reduce", "start_all_reduce"])
def test_ordered_sums_add_in_the_order_of_the_ranks(
    on_all_ranks: OnAllRanks, dtype: Any, is_started: bool
) -> None:
    def body(communicator: Communicator) -> None:
        communicator.ordered_sums = True
        try:
            for size in SIZES:
                rows = graded_rows(communicator.world_size, size).astype(dtype)
                array = rows[communicator.rank].copy()
                if is_started:
                    communicator.start_all_reduce(array).wait()
                else:
                    communicator.all_reduce(array)
                assert array.tobytes() == sequential_sum(rows).astype(dtype).tobytes()
        finally:
            communicator.ordered_sums = False

    on_all_ranks(body)


def graded_rows(world_size: int, size: int) -> Array:
    """Return random values of each rank, 10 times as large as those of the rank before."""
    draw = np.random.default_rng(size)
    return draw.standard_normal((world_size, size)) * 10.0 ** np.arange(world_size)[:, None]


def test_start_all_reduce_of_what_cannot_be_reduced_raises(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        with pytest.raises(TypeError, match="got int32"):
            communicator.start_all_reduce(np.zeros(3, np.int32))

    on_all_ranks(body)


def test_done_is_done() -> None:
    DONE.wait()
    assert DONE.test()
