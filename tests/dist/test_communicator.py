"""One suite for all communicators: every call × dtype × world size × root, against closed forms.

Rank r fills an array with r + k, so that the sum over N ranks is N·k + N(N - 1)/2. test_mpi.py runs this file
under mpirun.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.dist.communicator import DTYPES, Array, Communicator, check_array

OnAllRanks = Callable[[Callable[[Communicator], None]], None]

# One element, no elements, a scalar, several dimensions, and several chunks of mpi.py (4096 bytes, see
# conftest.py) with a remainder.
SHAPES = [(1,), (0,), (), (3, 1, 5), (9007,)]


def filled(shape: tuple[int, ...], dtype: np.dtype[Any], first: int) -> Array:
    """Return first, first + 1, first + 2 and so on, counted modulo 17 to stay exact in every dtype."""
    count = np.arange(int(np.prod(shape))) % 17
    return (count + first).astype(dtype).reshape(shape)


def summed(shape: tuple[int, ...], dtype: np.dtype[Any], world_size: int) -> Array:
    """Return the sum of filled(shape, dtype, rank) over all ranks in closed form."""
    count = np.arange(int(np.prod(shape))) % 17
    return (count * world_size + world_size * (world_size - 1) // 2).astype(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_reduce_rank_plus_k_twice_becomes_the_sum(
    on_all_ranks: OnAllRanks, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    def body(communicator: Communicator) -> None:
        untouched = filled(shape, dtype, communicator.rank)
        for _ in range(2):
            array = untouched.copy()
            communicator.all_reduce(array)
            assert array.dtype == dtype
            np.testing.assert_array_equal(array, summed(shape, dtype, communicator.world_size))
        np.testing.assert_array_equal(untouched, filled(shape, dtype, communicator.rank))

    on_all_ranks(body)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_broadcast_from_each_root_overwrites_the_others_only(
    on_all_ranks: OnAllRanks, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    def body(communicator: Communicator) -> None:
        for root in range(communicator.world_size):
            array = filled(shape, dtype, communicator.rank)
            communicator.broadcast(array, root=root)
            np.testing.assert_array_equal(array, filled(shape, dtype, root))

    on_all_ranks(body)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_gather_gives_every_ranks_array_and_keeps_the_own(
    on_all_ranks: OnAllRanks, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    def body(communicator: Communicator) -> None:
        array = filled(shape, dtype, communicator.rank)
        gathered = communicator.all_gather(array)
        assert gathered.shape == (communicator.world_size, *shape)
        assert gathered.dtype == dtype
        for rank in range(communicator.world_size):
            np.testing.assert_array_equal(gathered[rank], filled(shape, dtype, rank))
        gathered[...] = 0
        np.testing.assert_array_equal(array, filled(shape, dtype, communicator.rank))

    on_all_ranks(body)


@pytest.mark.parametrize("factor", [0, 1, 70_000])
def test_all_gather_bytes_of_differing_lengths_gives_each(on_all_ranks: OnAllRanks, factor: int) -> None:
    def body(communicator: Communicator) -> None:
        payload = bytes([communicator.rank]) * (communicator.rank * factor)
        gathered = communicator.all_gather_bytes(payload)
        assert gathered == [bytes([rank]) * (rank * factor) for rank in range(communicator.world_size)]

    on_all_ranks(body)


def test_all_reduce_of_inexact_values_gives_all_ranks_the_same_bits_each_time(
    on_all_ranks: OnAllRanks,
) -> None:
    def body(communicator: Communicator) -> None:
        own = np.random.default_rng(communicator.rank).standard_normal(30_000).astype(np.float32)
        exact = communicator.all_gather(own).astype(np.float64).sum(axis=0)
        results = []
        for _ in range(2):
            array = own.copy()
            communicator.all_reduce(array)
            results.append(array)
            for other in communicator.all_gather(array):
                assert other.tobytes() == array.tobytes()
        assert results[0].tobytes() == results[1].tobytes()
        np.testing.assert_allclose(results[0], exact, rtol=1e-5, atol=1e-5)

    on_all_ranks(body)


def test_all_reduce_of_float16_rounds_once(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        # 2048 + 1 is no float16, so that adding 1 by 1 in float16 would stay at 2048 for ever.
        array = np.array([2048 if communicator.rank == 0 else 1], np.float16)
        communicator.all_reduce(array)
        assert array[0] == np.float16(2047 + communicator.world_size)

    on_all_ranks(body)


def test_barrier_lets_nobody_through_before_the_last(on_all_ranks: OnAllRanks, tmp_path: Path) -> None:
    def body(communicator: Communicator) -> None:
        # Each rank in turn, behind as many barriers, extends what all others then see extended.
        path = communicator.all_gather_bytes(str(tmp_path / "turns").encode())[0].decode()
        for turn in range(communicator.world_size):
            if communicator.rank == turn:
                with open(path, "a") as file:
                    file.write(str(turn))
            communicator.barrier()
            with open(path) as file:
                assert file.read() == "0123"[: turn + 1]
            communicator.barrier()

    on_all_ranks(body)


def test_topology_names_rank_world_size_and_hosts(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        ranks = communicator.all_gather(np.array(communicator.rank))
        assert ranks.tolist() == list(range(communicator.world_size))
        assert len(communicator.topology.hosts) == communicator.world_size
        assert communicator.topology.rank == communicator.rank

    on_all_ranks(body)


def read_only() -> Array:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    return array


MISUSED = {
    "a list": ([1.0, 2.0], TypeError, "must be a numpy array, got list"),
    "int32": (np.zeros(3, np.int32), TypeError, "dtype must be one of float16, bfloat16, .*, got int32"),
    "big-endian": (np.zeros(3, ">f4"), TypeError, "got >f4"),
    "a transposed view": (np.zeros((2, 3), np.float32).T, ValueError, "contiguous in C order"),
    "read-only": (read_only(), ValueError, "must be writable"),
}


@pytest.mark.parametrize(("array", "error", "text"), MISUSED.values(), ids=MISUSED)
def test_check_array_misused_raises(array: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        check_array(array, writes=True)  # type: ignore[arg-type]


def test_check_array_read_only_that_is_only_read_passes() -> None:
    check_array(read_only(), writes=False)


@pytest.mark.parametrize("call", ["broadcast", "all_reduce", "all_gather"])
def test_every_call_checks_its_array(on_all_ranks: OnAllRanks, call: str) -> None:
    def body(communicator: Communicator) -> None:
        with pytest.raises(TypeError, match="got int32"):
            getattr(communicator, call)(np.zeros(3, np.int32))

    on_all_ranks(body)


def test_all_gather_bytes_of_text_raises(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        with pytest.raises(TypeError, match="payload must be bytes, got str"):
            communicator.all_gather_bytes("text")  # type: ignore[arg-type]

    on_all_ranks(body)


@pytest.mark.parametrize("root", [-1, 9])
def test_broadcast_from_unknown_root_raises(on_all_ranks: OnAllRanks, root: int) -> None:
    def body(communicator: Communicator) -> None:
        with pytest.raises(ValueError, match=f"root must be 0 to {communicator.world_size - 1}, got {root}"):
            communicator.broadcast(np.zeros(3, np.float32), root=root)

    on_all_ranks(body)


def test_wait_for_names_what_it_waits_in_until_that_is_over(on_all_ranks: OnAllRanks) -> None:
    def body(communicator: Communicator) -> None:
        seen, checks = [], 0

        def is_over() -> bool:
            seen.append(communicator.activity.collective)
            return len(seen) == 3

        def check() -> None:
            nonlocal checks
            checks += 1

        communicator.check()  # nothing is on a GPU
        communicator.check = check  # type: ignore[method-assign]
        try:
            communicator.wait_for(is_over, "broadcast")
        finally:
            del communicator.check
        assert seen == (["broadcast"] if communicator.world_size > 1 else [""]) * 3
        assert checks == 3  # the last after the end: what has failed looks as if it were over
        assert communicator.activity.collective == ""

    on_all_ranks(body)
