"""What 16 bits cost: sums of compressed values against float64, within the bounds that the docstrings state."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import run_ranks
from dtrain.dist.wire import Bfloat16Wire, Float16Wire, Wire

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


def test_float16_wire_of_values_whose_sum_is_too_large_for_float16_sums_them() -> None:
    wire, values = Float16Wire(4), np.full(3, 60_000, np.float32)
    travelling = np.zeros(3, np.float16)
    wire.compress(0, values, travelling)
    total = (travelling.astype(np.float32) * 4).astype(np.float16)  # what all_reduce makes of four equal ones
    wire.decompress(0, total, values)
    assert values.tolist() == [240_000] * 3
