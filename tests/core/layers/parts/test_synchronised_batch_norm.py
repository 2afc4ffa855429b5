"""Batch normalisation over ranks: what N ranks compute is what one rank computes of all their batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.operations import BatchNormOperation, BatchNormSpec
from dtrain.core.layers.parts.synchronised_batch_norm import SynchronisedBatchNorm
from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import run_ranks
from tests.core.layers.layer_harness import Array

EPS = 0.25
SIZES = [(3, 3), (2, 2, 2, 2), (1, 5), (4, 0, 3)]  # items on each rank


@dataclass
class Result:
    """What one rank ends up with."""

    y: Array
    mean: Array
    variance: Array
    x_diff: Array
    values_per_channel: int = 0


def run(operation: BatchNormOperation, x: Array, dy: Array, in_place: bool = False) -> Result:
    """Run an operation forward and backward on x."""
    num_channels = x.shape[1] if x.ndim > 1 else 1
    bottom, mean, variance = Blob(x.shape, x.dtype), *(Blob((num_channels,), x.dtype) for _ in range(2))
    top = bottom if in_place else Blob(x.shape, x.dtype)
    bottom.data[...] = x
    operation.forward(bottom, top, mean, variance)
    y = top.data.copy()
    top.diff[...] = dy
    operation.backward(bottom, top)
    return Result(y, mean.data.copy(), variance.data.copy(), bottom.diff.copy())


def run_on_ranks(sizes: Sequence[int], x: Array, dy: Array, in_place: bool = False) -> list[Result]:
    """Run a synchronised one on as many ranks as sizes, rank r on its share of the items."""
    ends = np.cumsum(sizes)

    def body(communicator: Communicator) -> Result:
        end = int(ends[communicator.rank])
        share = slice(end - sizes[communicator.rank], end)
        spec = BatchNormSpec(x[share].shape, EPS, batch_statistics=True)
        operation = SynchronisedBatchNorm(spec, create_engine("reference"), communicator)
        result = run(operation, x[share], dy[share], in_place)
        result.values_per_channel = operation.values_per_channel
        return result

    return run_ranks(len(sizes), body)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rest", [(), (3,), (3, 2, 2)], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_synchronised_batch_norm_computes_what_one_rank_does(
    sizes: tuple[int, ...], rest: tuple[int, ...], in_place: bool
) -> None:
    random, shape = np.random.default_rng(4), (sum(sizes), *rest)
    # each item has a level of its own, so that no rank's statistics are those of all
    x = random.standard_normal(shape) + 10 * np.arange(shape[0]).reshape(-1, *[1] * len(rest))
    dy = random.standard_normal(shape)
    engine = create_engine("reference")
    alone = run(engine.create(BatchNormSpec(shape, EPS, batch_statistics=True)), x, dy)
    ranks = run_on_ranks(sizes, x, dy, in_place)
    close = {"rtol": 1e-11, "atol": 1e-12}
    np.testing.assert_allclose(np.concatenate([rank.y for rank in ranks]), alone.y, **close)
    np.testing.assert_allclose(np.concatenate([rank.x_diff for rank in ranks]), alone.x_diff, **close)
    for rank in ranks:
        assert rank.values_per_channel == x.size // (rest[0] if rest else 1)
        np.testing.assert_array_equal(rank.mean, ranks[0].mean)
        np.testing.assert_array_equal(rank.variance, ranks[0].variance)
        np.testing.assert_allclose(rank.mean, alone.mean, **close)
        np.testing.assert_allclose(rank.variance, alone.variance, **close)


def test_synchronised_batch_norm_of_two_values_is_known() -> None:
    x = np.array([[0.0], [4.0]])  # mean 2, biased variance 4, deviation sqrt(4.25)
    first, second = run_on_ranks((1, 1), x, np.zeros((2, 1)))
    np.testing.assert_allclose([first.y, second.y], [[[-2 / 4.25**0.5]], [[2 / 4.25**0.5]]])
    assert (first.mean[0], first.variance[0]) == (2, 4)


def test_synchronised_batch_norm_of_a_large_mean_keeps_the_variance_in_float32() -> None:
    deviations = np.array([[-3.0], [-1.0], [1.0], [3.0]], np.float32)
    ranks = run_on_ranks((2, 2), deviations + np.float32(1e5), np.zeros((4, 1), np.float32))
    for rank in ranks:
        np.testing.assert_allclose(rank.variance, [5], rtol=1e-5)


def test_synchronised_batch_norm_without_any_item_is_empty() -> None:
    for rank in run_on_ranks((0, 0), np.zeros((0, 3)), np.zeros((0, 3))):
        assert rank.y.shape == rank.x_diff.shape == (0, 3)
        np.testing.assert_array_equal(rank.mean, np.zeros(3))
