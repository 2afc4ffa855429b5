"""What 16 bits cost: sums of compressed values against float64, within the bounds that the docstrings state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import run_ranks
from dtrain.dist.wire import Bfloat16Wire, Float16Wire, Wire
from tests.played.cupy import play_cupy

NUM_VALUES = 10_001


def gradient(rank: int) -> np.ndarray:
    """Return values of many sizes, of which float16 has normal numbers."""
    random = np.random.default_rng(rank)
    sizes = 10.0 ** random.uniform(-3, 2, NUM_VALUES)
    return (random.choice([-1, 1], NUM_VALUES) * sizes).astype(np.float32)


def sum_by(wire: Wire, world_size: int) -> np.ndarray:
    """Return the sums that rank 0 gets of all ranks' gradients."""

    def body(communicator: Communicator) -> np.ndarray:
        values = gradient(communicator.rank)
        travelling = np.zeros(wire.size(NUM_VALUES), wire.dtype)
        wire.compress(0, values, travelling)
        communicator.all_reduce(travelling)
        wire.decompress(0, travelling, values)
        return values

    return run_ranks(world_size, body)[0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("make", "precision"), [(Bfloat16Wire, 8), (Float16Wire, 11)])
def test_wire_of_16_bits_is_within_its_bound(make: type[Wire], precision: int, world_size: int) -> None:
    wire = make(world_size) if make is Float16Wire else make()  # type: ignore[call-arg]
    gradients = np.stack([gradient(rank) for rank in range(world_size)]).astype(np.float64)
    sums = sum_by(wire, world_size)
    bound = 2.0 ** (1 - precision) * np.abs(gradients).sum(axis=0)
    error = np.abs(sums - gradients.sum(axis=0))
    assert (error <= bound * 1.01).all()  # float32's own rounding on the way
    assert error.max() > 0  # 16 bits were used in earnest


@pytest.mark.parametrize("make", [Bfloat16Wire, lambda: Float16Wire(3)])
def test_wire_on_a_gpu_has_the_bits_of_the_hosts(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Wire]
) -> None:
    cupy = play_cupy(monkeypatch)
    monkeypatch.setattr("dtrain.dist.wire.load_cupy", lambda: cupy)
    host, device, values = make(), make(), gradient(0)
    travelling, there = np.zeros(NUM_VALUES, host.dtype), cupy.zeros(NUM_VALUES, host.dtype)
    host.compress(0, values, travelling)
    device.compress(0, cupy.asarray(values), there)
    assert there.get().tobytes() == travelling.tobytes()
    back = cupy.zeros(NUM_VALUES, np.float32)
    host.decompress(0, travelling, values)
    device.decompress(0, there, back)
    assert back.get().tobytes() == values.tobytes()


def test_float16_wire_of_values_whose_sum_is_too_large_for_float16_sums_them() -> None:
    wire, values = Float16Wire(4), np.full(3, 60_000, np.float32)
    travelling = np.zeros(3, np.float16)
    wire.compress(0, values, travelling)
    total = (travelling.astype(np.float32) * 4).astype(np.float16)  # what all_reduce makes of four equal ones
    wire.decompress(0, total, values)
    assert values.tolist() == [240_000] * 3
