"""In float32 ../reference/test_eltwise.py tests plain sums; here it is about 16 bits and what is fused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.eltwise import EltwiseSum, FusedSum, memory_of
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import EltwiseSpec, FusedSumSpec
from tests.core.engines.cudnn.conftest import Bench

SHAPE = (2, 3, 4, 5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_sum_in_each_precision_follows_the_formula(bench: Bench, count: int, relu: bool) -> None:
    spec = EltwiseSpec(SHAPE, "SUM", (1.0,) * count)
    values, y_diff = [bench.normal(*SHAPE) for _ in range(count)], bench.normal(*SHAPE)
    xs = [bench.pair(one, last=k > 0)[0] for k, one in enumerate(values)]
    y = bench.pair(np.zeros(SHAPE), y_diff)[0]
    operation = FusedSum(FusedSumSpec(spec), bench.engine) if relu else EltwiseSum(spec, bench.engine)
    operation.forward(xs, y)
    assert bench.is_last(y.data_tensor, SHAPE) == (bench.engine.precision != "FLOAT32")
    total = sum(values)
    bench.expect(y.data, np.maximum(total, 0) if relu else total, 2)
    operation.backward(xs, y, [k != 1 for k in range(count)])
    for k, x in enumerate(xs):
        expected = y_diff * (total > 0) if relu else y_diff
        bench.expect(x.diff, expected * (k != 1))


def test_sum_lets_nan_through(bench: Bench) -> None:
    xs = [bench.pair(np.full(SHAPE, value))[0] for value in (np.nan, 1.0)]
    y = bench.pair(np.zeros(SHAPE))[0]
    FusedSum(FusedSumSpec(EltwiseSpec(SHAPE, "SUM", (1.0, 1.0))), bench.engine).forward(xs, y)
    assert np.isnan(y.data).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 1, 2, 1, 2)])
def test_sum_of_any_number_of_axes_follows_the_formula(bench: Bench, shape: tuple[int, ...]) -> None:
    values = [bench.normal(*shape), bench.normal(*shape)]
    xs, y = [bench.pair(one, last=False)[0] for one in values], Blob(shape)
    EltwiseSum(EltwiseSpec(shape, "SUM", (1.0, 1.0)), bench.engine).forward(xs, y)
    np.testing.assert_allclose(y.data, values[0] + values[1], rtol=1e-6)


def test_sum_of_nothing_wanted_writes_nothing(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    x, y = (bench.pair(bench.normal(*SHAPE), 3.0)[0] for _ in range(2))
    EltwiseSum(EltwiseSpec(SHAPE, "SUM", (1.0, 1.0)), bench.engine).backward([x, x], y, [False, False])
    assert np.all(x.diff == 3)


@pytest.mark.parametrize(
    "spec",
    [
        EltwiseSpec(SHAPE, "PROD", (1.0, 1.0)),
        EltwiseSpec(SHAPE, "SUM", (1.0, -1.0)),
        EltwiseSpec(SHAPE, "SUM", (1.0,)),
        EltwiseSpec((0, 3), "SUM", (1.0, 1.0)),
    ],
)
def test_eltwise_but_a_plain_sum_is_not_offered(make_bench: Callable[..., Bench], spec: EltwiseSpec) -> None:
    with pytest.raises(NotOffered):
        EltwiseSum(spec, make_bench().engine)


def test_memory_of_blobs_is_with_channels_last_if_one_is(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    plain, last = (bench.pair(bench.normal(*SHAPE), last=is_last)[0] for is_last in (False, True))
    memories = bench.engine.memories
    assert memory_of(memories, [plain, last], SHAPE) is memories.best(SHAPE)
    assert memory_of(memories, [plain, plain], SHAPE) is memories.plain
