"""One suite for arrays in device memory: every call × dtype × world size × root, against closed forms.

A class with the fixture `on_devices` derives from DeviceSuite: test_nccl.py plays the GPUs, tests/gpu has real ones.
Rank r fills an array with r + k, so that the sum over N ranks is N·k + N(N - 1)/2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.dist.communicator import BFLOAT16, DTYPES
from dtrain.dist.nccl import NcclCommunicator

# body(communicator, cupy) is run on each rank.
Body = Callable[[NcclCommunicator, Any], None]
OnDevices = Callable[[Body], None]

# No elements, fewer elements than ranks, a scalar, several dimensions, many.
SHAPES = [(0,), (1,), (), (3, 1, 5), (9007,)]
FLOATS = [np.dtype("float16"), BFLOAT16, np.dtype("float32"), np.dtype("float64")]


def filled(shape: tuple[int, ...], dtype: np.dtype[Any], first: int) -> np.ndarray:
    """Return first, first + 1, first + 2 and so on, counted modulo 17 to stay exact in every dtype."""
    count = np.arange(int(np.prod(shape))) % 17
    return (count + first).astype(dtype).reshape(shape)


def summed(shape: tuple[int, ...], dtype: np.dtype[Any], world_size: int) -> np.ndarray:
    """Return the sum of filled(shape, dtype, rank) over all ranks in closed form."""
    count = np.arange(int(np.prod(shape))) % 17
    return (count * world_size + world_size * (world_size - 1) // 2).astype(dtype).reshape(shape)


def uneven(rank: int, size: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Return values of many sizes, whose sum depends on the order."""
    random = np.random.default_rng(rank)
    return (random.standard_normal(size) * 10.0 ** random.integers(-3, 4, size)).astype(dtype)


def check_capture(communicator: NcclCommunicator, cupy: Any, dtype: np.dtype[Any]) -> Any:
    """Capture all calls; assert that each launch has the bits of calls that were not captured. Return the graph."""
    values = [uneven(communicator.rank + 10 * k, 1003, dtype) for k in range(3)]

    def calls(array: Any) -> list[Any]:
        first, second = array[:500], array[500:]
        reductions = [communicator.start_all_reduce(first), communicator.start_all_reduce(second)]
        for reduction in reductions:
            reduction.wait()
            assert reduction.test()
        communicator.broadcast(second, root=communicator.world_size - 1)
        communicator.all_reduce(first)
        return [array, communicator.all_gather(first)]

    expected = []
    for each in values:
        expected.append([cupy.asnumpy(found).tobytes() for found in calls(cupy.asarray(each))])
    array = cupy.asarray(values[0])
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.Stream(non_blocking=True) as stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        results = calls(array)
        graph = stream.end_capture()
    for each, bits in zip(values, expected, strict=True):
        array.set(each)
        graph.launch()
        assert [cupy.asnumpy(found).tobytes() for found in results] == bits
    return graph


class DeviceSuite:
    """What every communicator of device arrays must do."""

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_all_reduce_rank_plus_k_twice_becomes_the_sum(
        self, on_devices: OnDevices, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            for _ in range(2):
                array = cupy.asarray(filled(shape, dtype, communicator.rank))
                communicator.all_reduce(array)
                assert array.dtype == dtype
                np.testing.assert_array_equal(
                    cupy.asnumpy(array), summed(shape, dtype, communicator.world_size)
                )
            assert communicator.activity.collective == ""

        on_devices(body)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_broadcast_from_each_root_overwrites_the_others_only(
        self, on_devices: OnDevices, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            for root in range(communicator.world_size):
                array = cupy.asarray(filled(shape, dtype, communicator.rank))
                communicator.broadcast(array, root=root)
                np.testing.assert_array_equal(cupy.asnumpy(array), filled(shape, dtype, root))

        on_devices(body)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_all_gather_gives_every_ranks_array_and_keeps_the_own(
        self, on_devices: OnDevices, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            array = cupy.asarray(filled(shape, dtype, communicator.rank))
            gathered = communicator.all_gather(array)
            assert isinstance(gathered, cupy.ndarray)
            assert gathered.shape == (communicator.world_size, *shape)
            for rank, part in enumerate(cupy.asnumpy(gathered)):
                np.testing.assert_array_equal(part, filled(shape, dtype, rank))
            np.testing.assert_array_equal(cupy.asnumpy(array), filled(shape, dtype, communicator.rank))

        on_devices(body)

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_all_reduce_with_ordered_sums_adds_in_rank_order(
        self, on_devices: OnDevices, dtype: np.dtype[Any]
    ) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            communicator.ordered_sums = True
            array = cupy.asarray(uneven(communicator.rank, 1003, dtype))
            communicator.all_reduce(array)
            wide = np.float64 if dtype == np.float64 else np.float32
            total = uneven(0, 1003, dtype).astype(wide)
            for rank in range(1, communicator.world_size):
                total += uneven(rank, 1003, dtype).astype(wide)
            assert cupy.asnumpy(array).tobytes() == total.astype(dtype).tobytes()

        on_devices(body)

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_all_reduce_of_inexact_values_gives_all_ranks_the_same_bits_each_time(
        self, on_devices: OnDevices, dtype: np.dtype[Any]
    ) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            results = []
            for _ in range(2):
                array = cupy.asarray(uneven(communicator.rank, 30_000, dtype))
                communicator.all_reduce(array)
                results.append(cupy.asnumpy(array).tobytes())
                gathered = cupy.asnumpy(communicator.all_gather(array))
                assert {part.tobytes() for part in gathered} == {results[-1]}
            assert results[0] == results[1]

        on_devices(body)

    def test_all_reduce_of_float16_rounds_once(self, on_devices: OnDevices) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            # 2048 + 1 is no float16, so that adding 1 by 1 in float16 would stay at 2048 for ever.
            array = cupy.asarray(np.array([2048 if communicator.rank == 0 else 1], np.float16))
            communicator.all_reduce(array)
            assert cupy.asnumpy(array)[0] == np.float16(2047 + communicator.world_size)

        on_devices(body)

    def test_start_all_reduce_of_twenty_sizes_and_blocking_calls_between_gives_each_its_sum(
        self, on_devices: OnDevices
    ) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            random = np.random.default_rng(communicator.rank)  # each rank asks in another pattern
            world_size = communicator.world_size
            forms = [((97 * k % 801,), DTYPES[k % len(DTYPES)]) for k in range(20)]
            arrays, reductions = [], []
            for k, (shape, dtype) in enumerate(forms):
                arrays.append(cupy.asarray(filled(shape, dtype, communicator.rank)))
                reductions.append(communicator.start_all_reduce(arrays[-1]))
                if random.random() < 0.5:
                    reductions[random.integers(len(reductions))].test()
                if k % 7 == 3:
                    between = cupy.asarray(filled((5,), np.dtype("float32"), communicator.rank))
                    communicator.all_reduce(between)
                    np.testing.assert_array_equal(
                        cupy.asnumpy(between), summed((5,), np.dtype("float32"), world_size)
                    )
                    communicator.barrier()
            for k in random.permutation(20):
                reductions[k].wait()
                assert reductions[k].test()
                np.testing.assert_array_equal(cupy.asnumpy(arrays[k]), summed(*forms[k], world_size))

        on_devices(body)

    def test_start_all_reduce_of_an_array_dropped_by_the_caller_goes_on(self, on_devices: OnDevices) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            for _ in range(10):
                communicator.start_all_reduce(cupy.asarray(np.ones(50_000, np.float32)))
            last = cupy.asarray(np.ones(3, np.float32))
            communicator.all_reduce(last)
            assert cupy.asnumpy(last).tolist() == [communicator.world_size] * 3

        on_devices(body)

    def test_every_call_comes_after_what_the_callers_stream_was_given(self, on_devices: OnDevices) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            world_size, rank = communicator.world_size, communicator.rank
            array = cupy.asarray(np.zeros(1 << 16, np.float32))
            array.fill(rank + 1)
            communicator.start_all_reduce(array).wait()
            assert set(cupy.asnumpy(array).tolist()) == {world_size * (world_size + 1) / 2}
            array.fill(rank + 5)
            communicator.broadcast(array, root=world_size - 1)
            assert set(cupy.asnumpy(array).tolist()) == {world_size + 4}
            array.fill(rank)
            gathered = cupy.asnumpy(communicator.all_gather(array))
            assert gathered[:, 7].tolist() == list(range(world_size))

        on_devices(body)

    def test_arrays_in_host_memory_bytes_and_barriers_are_the_hosts(self, on_devices: OnDevices) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            shape, dtype, world_size = (5,), np.dtype("float32"), communicator.world_size
            for call in (
                communicator.all_reduce,
                lambda array: communicator.start_all_reduce(array).wait(),
            ):
                array = communicator.allocate(5, dtype)
                array[...] = filled(shape, dtype, communicator.rank)
                call(array)
                np.testing.assert_array_equal(array, summed(shape, dtype, world_size))
            communicator.broadcast(array)
            assert communicator.all_gather(array).shape == (world_size, 5)
            payload = b"x" * communicator.rank
            assert communicator.all_gather_bytes(payload) == [b"x" * rank for rank in range(world_size)]
            communicator.barrier()

        on_devices(body)

    def test_allocate_on_device_gives_zeros_there(self, on_devices: OnDevices) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            array = communicator.allocate_on_device(9, np.dtype("float32"))
            assert isinstance(array, cupy.ndarray)
            assert cupy.asnumpy(array).tolist() == [0] * 9

        on_devices(body)

    def test_arrays_of_other_forms_are_refused(self, on_devices: OnDevices) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            with pytest.raises(TypeError, match="nccl: dtype must be one of float16, .*, got int32"):
                communicator.all_reduce(cupy.asarray(np.zeros(3, np.int32)))
            with pytest.raises(ValueError, match="nccl: array must be contiguous in C order"):
                communicator.start_all_reduce(cupy.asarray(np.zeros((2, 3), np.float32)).T)
            with pytest.raises(ValueError, match="root must be 0 to .*, got 9"):
                communicator.broadcast(cupy.asarray(np.zeros(3, np.float32)), root=9)
            with pytest.raises(TypeError, match="must be a numpy array, got list"):
                communicator.all_reduce([1.0])  # type: ignore[arg-type]

        on_devices(body)
