"""Pieces by way of page-locked memory on played streams, which copy later and in their own time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.dist.communicator import Array
from dtrain.dist.nccl_staging import Staging
from dtrain.dist.pipeline import Piece, Pipeline
from dtrain.dist.waiting import Steps, nothing
from tests.dist.fake_cupy import DeviceArray, make_fake_cupy
from tests.dist.test_nccl import documented_arguments

CUPY = make_fake_cupy(1)


def happened() -> object:
    """Return an event that has happened."""
    event = CUPY.cuda.Event()
    event.record(CUPY.cuda.get_current_stream())
    CUPY.cuda.get_current_stream().synchronize()
    return event


def negate(values: Array, result: Array) -> Piece:
    """Stand in for a sum: what comes back shows that it went by the host."""

    def steps() -> Steps:
        yield False
        result[...] = -values.astype(np.float64)

    return steps(), nothing()


def pass_through(
    staging: Staging, source: DeviceArray, target: DeviceArray, add: Callable[[Array, Array], Piece]
) -> None:
    pipeline = Pipeline([2, 2, 2, 2])
    pipeline.start(staging.pieces(source, target, happened(), add)).wait()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 500])
@pytest.mark.parametrize("num_slots", [1, 3, 100])
def test_pieces_come_back_where_they_were_in_memory_for_few_of_them(size: int, num_slots: int) -> None:
    array = CUPY.asarray(np.arange(size, dtype=np.float32))
    staging = Staging(CUPY, num_slots, slot_bytes=64)
    for sign in (-1, 1):
        pass_through(staging, array, array, negate)
        assert CUPY.asnumpy(array).tolist() == [sign * k for k in range(size)]


def test_pieces_of_floats_may_come_back_as_halves() -> None:
    source = CUPY.asarray(np.arange(50, dtype=np.float32))
    target = CUPY.zeros(50, np.float16)
    pass_through(Staging(CUPY, 2, slot_bytes=64), source, target, negate)
    assert CUPY.asnumpy(target).tolist() == [-k for k in range(50)]
    assert CUPY.asnumpy(source).tolist() == list(range(50))


def test_pieces_are_copied_after_the_event() -> None:
    array = CUPY.asarray(np.zeros(40, np.float32))
    stream, ready = CUPY.cuda.Stream(), CUPY.cuda.Event()
    stream.give(lambda: time.sleep(0.05) or array.view(np.ndarray).fill(3))
    ready.record(stream)
    pipeline = Pipeline([2, 2, 2, 2])
    pipeline.start(Staging(CUPY, 2, slot_bytes=64).pieces(array, array, ready, negate)).wait()
    assert set(CUPY.asnumpy(array).tolist()) == {-3.0}


def test_played_copies_have_the_arguments_of_the_installed_cupy() -> None:
    real = pytest.importorskip("cupy")
    assert documented_arguments(real.cuda.runtime.memcpyAsync.__doc__) == [
        "dst",
        "src",
        "size",
        "kind",
        "stream",
    ]
    assert documented_arguments(real.cuda.alloc_pinned_memory.__doc__) == ["size"]
    for name in ("memcpyHostToDevice", "memcpyDeviceToHost"):
        assert getattr(real.cuda.runtime, name) == getattr(CUPY.cuda.runtime, name)
