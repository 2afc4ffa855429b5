"""In float32 ../reference/test_batch_norm.py tests the plain one; here it is about 16 bits and what is fused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.batch_norm import BatchNorm, FusedBatchNorm
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import BatchNormSpec, FusedBatchNormSpec, Wanted
from tests.core.engines.cudnn.conftest import Array, Bench

EPS = 1e-3
KINDS = list(itertools.product((False, True), ((False, False), (True, False), (True, True)), (False, True)))


def normalise(x: Array, mean: Array, variance: Array, scale: Array, shift: Array, relu: bool) -> Array:
    """Return the formula of a FusedBatchNormSpec; all but x are a number a channel."""
    channels = (-1, *[1] * (x.ndim - 2))
    factor = scale / np.sqrt(variance + EPS)
    y = (x - mean.reshape(channels)) * factor.reshape(channels) + shift.reshape(channels)
    return np.maximum(y, 0) if relu else y


def statistics(x: Array) -> tuple[Array, Array]:
    axes = (0, *range(2, x.ndim))
    return x.mean(axis=axes), x.var(axis=axes)


class Case:
    """Values of one batch normalisation, and its gradients by central differences."""

    def __init__(
        self,
        bench: Bench,
        given: bool,
        learned: tuple[bool, bool],
        relu: bool,
        shape: tuple[int, ...] = (3, 4, 2, 5),
    ) -> None:
        self.bench, self.given, self.relu = bench, given, relu
        self.learned = learned
        self.x, self.y_diff = bench.normal(*shape), bench.normal(*shape)
        self.mean, self.variance = bench.normal(4), np.abs(bench.normal(4)) + 0.5
        self.scale = bench.normal(4) if learned[0] else np.ones(4)
        self.shift = bench.normal(4) if learned[1] else np.zeros(4)

    def y(self, x: Array, scale: Array, shift: Array) -> Array:
        mean, variance = (self.mean, self.variance) if self.given else statistics(x)
        return normalise(x, mean, variance, scale, shift, self.relu)

    def slope(self, y_diff: Array, **changed: Array) -> float:
        """Return the derivative of ⟨y_diff, y⟩ along what is added to x, scale or shift."""
        step, values = 1e-6, []
        for sign in (1, -1):
            operands = {
                name: getattr(self, name) + sign * step * changed.get(name, 0)
                for name in ("x", "scale", "shift")
            }
            values.append((y_diff * self.y(**operands)).sum())
        return (values[0] - values[1]) / (2 * step)

    def run(self, in_place: bool, diff: float) -> dict[str, Any]:
        """Run the engine; return y, mean, variance and the three gradients."""
        bench = self.bench
        norm = BatchNormSpec(self.x.shape, EPS, not self.given)
        operation = bench.engine.create_own(FusedBatchNormSpec(norm, *self.learned, self.relu))
        x, y = bench.pair(self.x)[0], bench.pair(np.zeros(self.x.shape))[0]
        y = x if in_place else y
        mean, variance = (bench.pair(values, last=False)[0] for values in (self.mean, self.variance))
        params = [bench.pair(values, diff, last=False)[0] for values in (self.scale, self.shift)]
        given = [param if is_there else None for param, is_there in zip(params, self.learned, strict=True)]
        operation.forward(x, y, mean, variance, *given)
        top = y.data.copy()
        bench.place(y, top, self.y_diff)
        operation.backward(x, y, *given, Wanted())
        found = {"y": top, "mean": mean.data, "variance": variance.data, "x_diff": x.diff}
        return found | {"scale_diff": params[0].diff - diff, "shift_diff": params[1].diff - diff}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("given", "learned", "relu"), KINDS)
def test_fused_batch_norm_in_each_precision_follows_the_formula(
    bench: Bench, given: bool, learned: tuple[bool, bool], relu: bool, in_place: bool
) -> None:
    case = Case(bench, given, learned, relu)
    found = case.run(in_place, diff=0.5)
    bench.expect(found["y"], case.y(case.x, case.scale, case.shift), 2)
    mean, variance = (case.mean, case.variance) if given else statistics(case.x)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["variance"], variance, rtol=1e-5, atol=1e-6)
    let_through = case.y_diff * (found["y"] > 0) if relu else case.y_diff
    if relu:  # at the very values of y, which may be 0 for what is positive by less than a rounding
        case.relu = False
    for name, is_there in zip(("scale", "shift"), learned, strict=True):
        expected = [case.slope(let_through, **{name: one}) for one in np.eye(4)] if is_there else np.zeros(4)
        bench.expect(found[f"{name}_diff"], np.asarray(expected), 4)
    direction = bench.normal(*case.x.shape)
    scale = np.linalg.norm(direction) * np.linalg.norm(found["x_diff"])
    actual = (found["x_diff"] * direction).sum()
    assert actual == pytest.approx(
        case.slope(let_through, x=direction), rel=0, abs=4 * bench.tolerance * scale
    )


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_batch_norm_in_each_precision_is_the_references(bench: Bench, batch_statistics: bool) -> None:
    spec = BatchNormSpec((3, 4, 2, 5), EPS, batch_statistics)
    x, x_exact = bench.pair(bench.normal(*spec.x_shape))
    y, y_exact = bench.pair(np.zeros(spec.x_shape), bench.normal(*spec.x_shape))
    given = bench.normal(4), np.abs(bench.normal(4)) + 0.5
    mine, exact = zip(*(bench.pair(values, last=False) for values in given), strict=True)
    for operation, bottom, top, numbers in (
        (BatchNorm(spec, bench.engine), x, y, mine),
        (bench.reference.create(spec), x_exact, y_exact, exact),
    ):
        operation.forward(bottom, top, *numbers)
        operation.backward(bottom, top)
    bench.expect(y.data, y_exact.data)
    bench.expect(x.diff, x_exact.diff)


def test_fused_batch_norm_adds_to_the_wanted_gradients_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    case = Case(bench, False, (True, True), False)
    operation = FusedBatchNorm(FusedBatchNormSpec(BatchNormSpec(case.x.shape, EPS, True)), bench.engine)
    mean, variance = Blob((4,)), Blob((4,))
    for wanted in (Wanted(True, True, False), Wanted(False, False, True)):
        x, y = bench.pair(case.x, 7.0)[0], bench.pair(case.x, case.y_diff)[0]
        scale, shift = bench.pair(case.scale, 2.0)[0], bench.pair(case.shift)[0]
        shift.clear_diff()  # nothing is there: the other's 2 must not be added to garbage
        operation.forward(x, y, mean, variance, scale, shift)
        operation.backward(x, y, scale, shift, wanted)
        expected = [case.slope(case.y_diff, scale=one) for one in np.eye(4)] if wanted.weight else 0
        np.testing.assert_allclose(scale.diff, 2 + np.asarray(expected) * np.ones(4), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            shift.diff, case.y_diff.sum(axis=(0, 2, 3)) * wanted.bias, rtol=1e-4, atol=1e-4
        )
        assert np.all(x.diff == 7) == (not wanted.x)


def test_batch_norm_of_one_value_a_channel_has_no_variance(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    x, mean, variance = bench.pair(bench.normal(1, 4))[0], Blob((4,)), Blob((4,))
    y = Blob((1, 4))
    BatchNorm(BatchNormSpec((1, 4), 1e-5, True), bench.engine).forward(x, y, mean, variance)
    np.testing.assert_allclose(variance.data, 0, atol=1e-11)
    np.testing.assert_array_equal(mean.data, x.data[0])
    np.testing.assert_allclose(y.data, 0, atol=1e-5)


def test_batch_norm_without_backward_keeps_nothing(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    x = bench.pair(bench.normal(3, 4, 2, 2))[0]
    operation = BatchNorm(BatchNormSpec(x.shape, EPS, True), bench.engine)
    operation.forward(x, x, Blob((4,)), Blob((4,)), keeps=False)
    assert operation._x.values is None


def test_batch_norm_in_16_bits_works_where_values_lie(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    for batch_statistics in (True, False):
        x, y = (bench.pair(bench.normal(3, 4, 2, 2))[0] for _ in range(2))
        operation = BatchNorm(BatchNormSpec(x.shape, EPS, batch_statistics), bench.engine)
        operation.forward(x, y, Blob((4,)), Blob((4,)))
        assert bench.is_last(y.data_tensor, y.shape)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 1, 1, 1, 1)])
def test_batch_norm_of_shapes_that_cudnn_lacks_is_not_offered(
    make_bench: Callable[..., Bench], shape: tuple[int, ...]
) -> None:
    with pytest.raises(NotOffered, match=f"of {len(shape)} axes"):
        BatchNorm(BatchNormSpec(shape, EPS, True), make_bench().engine)
