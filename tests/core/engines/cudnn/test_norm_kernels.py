from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cudnn import norm_kernels
from dtrain.core.engines.cudnn.norm_kernels import NormKernels
from tests.core.engines.cudnn.conftest import Array, Bench

EPS = 1e-5
SHAPES = [(3, 8, 2, 5), (2, 5, 3, 3), (1, 264, 2, 2), (40, 16, 4, 4), (2, 24, 1, 1), (2, 8, 2, 2, 3)]


class Case:
    """Values (N, C, …) and what formulas say of them, in float64."""

    def __init__(self, bench: Bench, shape: tuple[int, ...], relu: bool, mean: float = 0.0) -> None:
        self.bench, self.relu = bench, relu
        channels = shape[1]
        self.x, self.y_diff = bench.normal(*shape) + mean, bench.normal(*shape)
        self.scale, self.shift = bench.normal(channels) + 0.1, bench.normal(channels)
        self.axes = (0, *range(2, len(shape)))
        self.mean, self.variance = self.x.mean(axis=self.axes), self.x.var(axis=self.axes)
        self.normalised = (self.x - self.of(self.mean)) / np.sqrt(self.of(self.variance) + EPS)
        self.total = self.normalised * self.of(self.scale) + self.of(self.shift)
        self.y = np.maximum(self.total, 0) if relu else self.total
        self.gradient = self.y_diff * (self.total > 0) if relu else self.y_diff

    def of(self, numbers: Array) -> Array:
        return numbers.reshape(-1, *[1] * (self.x.ndim - 2))

    def last(self, values: Array) -> Any:
        half = self.bench.engine.memories.half
        return self.bench.engine.xp.asarray(np.ascontiguousarray(np.moveaxis(values, 1, -1)).astype(half))

    def numbers(self, values: Array) -> Any:
        return self.bench.engine.xp.asarray(values.astype(np.float32))

    def first(self, values: Any) -> Array:
        return np.moveaxis(values.get().astype(np.float64), -1, 1)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", ["BF16", "FLOAT16"])
def test_forward_and_backward_follow_the_formula(
    make_bench: Callable[..., Bench], precision: str, shape: tuple[int, ...], relu: bool
) -> None:
    bench = make_bench(precision)
    case, xp = Case(bench, shape, relu), bench.engine.xp
    kernels = NormKernels(bench.engine, shape, relu)
    x, y = case.last(case.x), case.last(0 * case.x)
    kept, given, diffs = (tuple(xp.ones(shape[1], np.float32) for _ in range(2)) for _ in range(3))
    params = case.numbers(case.scale), case.numbers(case.shift)
    kernels.forward(x, y, params, kept, given, EPS)
    np.testing.assert_allclose(given[0].get(), case.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(given[1].get(), case.variance, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kept[0].get(), given[0].get())
    np.testing.assert_allclose(kept[1].get(), 1 / np.sqrt(case.variance + EPS), rtol=1e-5)
    bench.expect(case.first(y), case.y)
    x_diff = case.last(0 * case.x)
    kernels.backward(x, case.last(case.y_diff), params, kept, diffs, 1 | 4 | 8, x_diff)
    slopes = (case.gradient * case.normalised).sum(axis=case.axes)
    sums, count = case.gradient.sum(axis=case.axes), case.x.size / shape[1]
    np.testing.assert_allclose(diffs[0].get(), slopes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(diffs[1].get(), 1 + sums, rtol=1e-4, atol=1e-4)
    expected = case.gradient - case.of(sums) / count - case.normalised * case.of(slopes) / count
    bench.expect(
        case.first(x_diff), expected * case.of(case.scale) / np.sqrt(case.of(case.variance) + EPS), 2
    )


def test_forward_of_a_large_mean_keeps_the_variance(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("FLOAT16")
    case, xp = Case(bench, (40, 8, 4, 4), False), bench.engine.xp
    x = case.last(np.round(64 * case.x) / 64 + 1000)
    values = case.first(x)
    assert values.std() > 0.5
    kept, given = (tuple(xp.empty(8, np.float32) for _ in range(2)) for _ in range(2))
    params = case.numbers(case.scale), case.numbers(case.shift)
    NormKernels(bench.engine, (40, 8, 4, 4), False).forward(
        x, case.last(0 * case.x), params, kept, given, EPS
    )
    np.testing.assert_allclose(given[1].get(), values.var(axis=case.axes), rtol=1e-5)


def test_backward_of_what_is_not_wanted_is_left_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    case, xp = Case(bench, (2, 8, 2, 2), True), bench.engine.xp
    kept, diffs = (
        (case.numbers(case.mean), case.numbers(1 / np.sqrt(case.variance + EPS))),
        [xp.ones(8, np.float32)] * 2,
    )
    params = case.numbers(case.scale), case.numbers(case.shift)
    kernels = NormKernels(bench.engine, (2, 8, 2, 2), True)
    kernels.backward(case.last(case.x), case.last(case.y_diff), params, kept, tuple(diffs), 0, None)
    assert np.all(diffs[0].get() == 1)


def test_nan_stays_visible_behind_the_relu(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    case, xp = Case(bench, (2, 8, 2, 2), True), bench.engine.xp
    case.x[0, 3, 0, 0] = np.nan
    y = case.last(0 * case.x)
    kept, given = (tuple(xp.empty(8, np.float32) for _ in range(2)) for _ in range(2))
    params = case.numbers(case.scale), case.numbers(case.shift)
    NormKernels(bench.engine, (2, 8, 2, 2), True).forward(case.last(case.x), y, params, kept, given, EPS)
    is_nan = np.isnan(case.first(y))
    assert is_nan[:, 3].all()
    assert not np.delete(is_nan, 3, axis=1).any()
    assert np.isnan(given[1].get()[3])


def test_sums_of_any_grid_are_the_same_to_a_rounding(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("BF16")
    case, xp, found = Case(bench, (9, 16, 8, 8), False), bench.engine.xp, []
    for blocks in (1, 2, 5, 1024):
        monkeypatch.setattr(norm_kernels, "_BLOCKS", blocks)
        kept, given = (tuple(xp.empty(16, np.float32) for _ in range(2)) for _ in range(2))
        params = case.numbers(case.scale), case.numbers(case.shift)
        kernels = NormKernels(bench.engine, (9, 16, 8, 8), False)
        kernels.forward(case.last(case.x), case.last(case.x), params, kept, given, EPS)
        found.append(given[1].get())
        np.testing.assert_allclose(found[-1], case.variance, rtol=1e-5)
