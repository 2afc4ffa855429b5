from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn.binding import BF16, WEIGHTS
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.engines.operations import (
    ConvolutionSpec,
    EltwiseSpec,
    FusedSumSpec,
    FusedWeightedSpec,
    InnerProductSpec,
    Wanted,
)
from tests.core.engines.onednn.conftest import BF16_ROUNDOFF

# x_shape, weight_shape, y_shape, axis, stride, pad, dilation, group
SPECS = {
    "image": ConvolutionSpec((2, 3, 9, 9), (32, 3, 5, 5), (2, 32, 9, 9), 1, (1, 1), (2, 2), (1, 1)),
    "blocks": ConvolutionSpec((2, 32, 7, 8), (48, 32, 3, 3), (2, 48, 4, 4), 1, (2, 2), (1, 1), (1, 1)),
    "no blocks": ConvolutionSpec((2, 20, 8, 8), (50, 20, 5, 5), (2, 50, 4, 4), 1, (1, 1), (0, 0), (1, 1)),
    "one by one": ConvolutionSpec((2, 64, 5, 5), (32, 64, 1, 1), (2, 32, 5, 5), 1, (1, 1), (0, 0), (1, 1)),
    "groups": ConvolutionSpec((2, 32, 6, 6), (64, 16, 3, 3), (2, 64, 6, 6), 1, (1, 1), (1, 1), (1, 1), 2),
    "groups filled up": ConvolutionSpec(
        (2, 48, 6, 6), (48, 24, 3, 3), (2, 48, 6, 6), 1, (1, 1), (1, 1), (1, 1), 2
    ),
    "depthwise": ConvolutionSpec((2, 20, 6, 6), (20, 1, 3, 3), (2, 20, 6, 6), 1, (1, 1), (1, 1), (1, 1), 20),
    "dilated": ConvolutionSpec((1, 16, 9, 9), (16, 16, 3, 3), (1, 16, 5, 3), 1, (1, 1), (0, 0), (2, 3)),
    "volume": ConvolutionSpec(
        (1, 16, 4, 5, 6), (16, 16, 2, 3, 3), (1, 16, 3, 3, 4), 1, (1, 1, 1), (0, 0, 0), (1, 1, 1)
    ),
    "row": ConvolutionSpec((2, 16, 12), (20, 16, 3), (2, 20, 12), 1, (1,), (1,), (1,)),
    "items over two axes": ConvolutionSpec(
        (2, 3, 16, 5, 5), (20, 16, 3, 3), (2, 3, 20, 5, 5), 2, (1, 1), (1, 1), (1, 1)
    ),
    "transposed": ConvolutionSpec(
        (2, 32, 4, 4), (32, 16, 4, 4), (2, 16, 8, 8), 1, (2, 2), (1, 1), (1, 1), transposed=True
    ),
    "product": InnerProductSpec(6, 40, 20),
    "product of one row": InnerProductSpec(1, 40, 20),
    "product, transposed": InnerProductSpec(6, 40, 20, transposed=True),
}
SUMMED = [name for name, spec in SPECS.items() if isinstance(spec, ConvolutionSpec)]
BEHIND = [(name, False, True) for name in SPECS] + [(name, True, relu) for name in SUMMED for relu in (0, 1)]
SHAPE = (2, 20, 3, 4)


def shapes_of(spec: ConvolutionSpec | InnerProductSpec) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of x, weight, bias and y."""
    if isinstance(spec, ConvolutionSpec):
        return spec.x_shape, spec.weight_shape, (spec.y_shape[spec.axis],), spec.y_shape
    weight = spec.num_outputs, spec.num_inputs
    y = spec.num_rows, spec.num_outputs
    return (spec.num_rows, spec.num_inputs), weight[::-1] if spec.transposed else weight, y[1:], y


@dataclass
class Case:
    """A fused operation with its operands; the layouts in which those come that may come in any."""

    bench: Any
    spec: FusedWeightedSpec
    layout: str = "plain"
    wanted: Wanted = Wanted()
    wants_added: bool = True

    def __post_init__(self) -> None:
        x, weight, bias, y = shapes_of(self.spec.operation)
        self.values = [self.bench.normal(*shape) for shape in (x, weight, bias)]
        self.added, self.y_diff = self.bench.normal(*y), self.bench.normal(*y)

    def expect(self) -> list[Any]:
        """Return y, and the diffs of x, weight, bias and what is added, all in float64."""
        blobs = [self.bench.exact(value, 0.5) for value in self.values]
        y = Blob(self.y_diff.shape, np.float64)
        operation = self.bench.reference.create(self.spec.operation)
        operation.forward(*blobs, y)
        result = y.data + self.added * self.spec.adds
        diff = self.y_diff
        if self.spec.relu:
            diff = diff * (result > 0)
            result = np.maximum(result, 0)
        y.diff[...] = diff
        operation.backward(*blobs, y, self.wanted)
        return [result, *(blob.diff for blob in blobs), diff if self.wants_added else np.full(y.shape, 0.5)]

    def run(self) -> list[Any]:
        """Return the same of the engine under test."""
        blobs = [self.bench.blob(value, "plain", 0.5) for value in self.values]
        added = self.bench.blob(self.added, self.layout, 0.5) if self.spec.adds else None
        y = Blob(self.y_diff.shape)
        self.bench.place(blobs[0].data_tensor, self.layout)
        self.operation = self.bench.engine.create_own(self.spec)
        self.operation.forward(*blobs, added, y)
        self.y_memories = y.data_tensor.storage.valid.copy()
        result = y.read_data().copy()
        y.diff[...] = self.y_diff
        self.bench.place(y.diff_tensor, self.layout)
        self.operation.backward(*blobs, added, y, self.wanted, self.wants_added)
        return [result, *(blob.diff for blob in (*blobs, added) if blob is not None)]

    def check(self, *tolerances: float | None) -> None:
        """Compare y and the diffs, each with its tolerance."""
        actual = self.run()
        for i, (one, other) in enumerate(zip(actual, self.expect(), strict=False)):
            self.bench.expect(one, other, tolerances[i] if tolerances else None)


@pytest.mark.parametrize(("name", "adds", "relu"), BEHIND)
def test_fused_operation_gives_what_one_after_the_other_gives(
    bench: Any, name: str, adds: bool, relu: bool
) -> None:
    Case(bench, FusedWeightedSpec(SPECS[name], adds, bool(relu))).check()


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize(("adds", "relu"), [(False, True), (True, False), (True, True)])
def test_fused_convolution_takes_its_operands_from_each_layout(
    bench: Any, layout: str, adds: bool, relu: bool
) -> None:
    Case(bench, FusedWeightedSpec(SPECS["blocks"], adds, relu), layout).check()


@pytest.mark.parametrize("wants_added", [False, True])
@pytest.mark.parametrize(
    "wanted", [Wanted(x=False), Wanted(weight=False), Wanted(bias=False), Wanted(False, False, False)]
)
@pytest.mark.parametrize("relu", [False, True])
def test_fused_convolution_computes_what_is_wanted_alone(
    bench: Any, relu: bool, wanted: Wanted, wants_added: bool
) -> None:
    Case(bench, FusedWeightedSpec(SPECS["groups"], True, relu), "plain", wanted, wants_added).check()


@pytest.mark.parametrize("wanted", [Wanted(x=False), Wanted(weight=False), Wanted(bias=False)])
def test_fused_inner_product_computes_what_is_wanted_alone(bench: Any, wanted: Wanted) -> None:
    Case(bench, FusedWeightedSpec(SPECS["product"], False, True), "plain", wanted).check()


@pytest.mark.parametrize("name", ["blocks", "product"])
def test_fused_operation_without_bias_leaves_none_out(bench: Any, name: str) -> None:
    spec = replace(SPECS[name], bias=False)
    x, weight, _, y_shape = shapes_of(spec)
    values, y_diff, results = [bench.normal(*x), bench.normal(*weight)], bench.normal(*y_shape), []
    for is_exact in (True, False):
        engine = bench.reference if is_exact else bench.engine
        blobs = [bench.exact(value, 0.0) if is_exact else bench.blob(value, "plain", 0.0) for value in values]
        y = Blob(y_shape, blobs[0].dtype)
        if is_exact:
            operation = engine.create(spec)
            operation.forward(*blobs, None, y)
            y.diff[...] = y_diff * (y.data > 0)
            y.data[...] = np.maximum(y.data, 0)
            operation.backward(*blobs, None, y, Wanted())
        else:
            operation = engine.create_own(FusedWeightedSpec(spec, False, True))
            operation.forward(*blobs, None, None, y)
            y.diff[...] = y_diff
            operation.backward(*blobs, None, None, y, Wanted(), False)
        results.append([y.data, *(blob.diff for blob in blobs)])
    for expected, actual in zip(*results, strict=True):
        bench.expect(actual, expected)


@pytest.mark.parametrize(("name", "adds", "relu"), BEHIND)
def test_fused_operation_in_bf16_rounds_what_the_plain_one_rounds(
    bf16_bench: Any, name: str, adds: bool, relu: bool
) -> None:
    case = Case(bf16_bench, FusedWeightedSpec(SPECS[name], adds, bool(relu)))
    is_product = isinstance(SPECS[name], InnerProductSpec)
    of_values = 1e-5 if is_product else BF16_ROUNDOFF
    case.check(of_values, of_values, 1e-5, 1e-5, 1e-5)
    assert all(memory.rounds for memory in case.y_memories) != is_product


@pytest.mark.parametrize("adds", [False, True])
def test_fused_convolution_leaves_y_in_the_layout_of_the_plain_one(bench: Any, adds: bool) -> None:
    case = Case(bench, FusedWeightedSpec(SPECS["blocks"], adds, True))
    case.run()
    plain = bench.engine.create(SPECS["blocks"])
    assert case.y_memories == {plain.y_memory}
    assert isinstance(plain.y_memory, Layout)


@pytest.mark.parametrize("relu_of", ["convolution", "product", "sum"])
def test_fused_relu_shows_a_nan_and_infinity(bench: Any, relu_of: str) -> None:
    """Each value of y is one of x, as with a weight of 1."""
    x = np.array([np.nan, np.inf, 1.5e38, 2.0**-126, 0.0, -(2.0**-126), -3.0e38, -2.0])
    expected = np.array([np.nan, np.inf, 1.5e38, 2.0**-126, 0, 0, 0, 0], np.float32)
    one = bench.blob(np.ones((1, 1)), "plain")
    if relu_of == "sum":
        y, zero = Blob((8, 1)), bench.blob(np.zeros((8, 1)), "plain")
        operation = bench.engine.create_own(FusedSumSpec(EltwiseSpec((8, 1), "SUM", (1.0, 1.0))))
        operation.forward([bench.blob(x.reshape(8, 1), "plain"), zero], y)
    elif relu_of == "product":
        y = Blob((8, 1))
        spec = FusedWeightedSpec(InnerProductSpec(8, 1, 1, bias=False), False, True)
        bench.engine.create_own(spec).forward(bench.blob(x.reshape(8, 1), "plain"), one, None, None, y)
    else:
        one.reshape(1, 1, 1, 1)
        y = Blob((8, 1, 1, 1))
        plain = ConvolutionSpec(y.shape, one.shape, y.shape, 1, (1, 1), (0, 0), (1, 1), bias=False)
        operation = bench.engine.create_own(FusedWeightedSpec(plain, False, True))
        operation.forward(bench.blob(x.reshape(8, 1, 1, 1), "plain"), one, None, None, y)
    np.testing.assert_array_equal(y.data.ravel(), expected)
    assert not np.signbit(y.data.ravel()[1:]).any()


@pytest.mark.parametrize(
    "name", ["image", "blocks", "no blocks", "one by one", "groups", "depthwise", "product"]
)
def test_fused_operation_of_a_nan_in_x_gives_a_nan_wherever_it_is_seen(bench: Any, name: str) -> None:
    case = Case(bench, FusedWeightedSpec(SPECS[name], False, True))
    case.values[0].flat[case.values[0].size // 2] = np.nan
    np.testing.assert_array_equal(np.isnan(case.run()[0]), np.isnan(case.expect()[0]))
    assert np.isnan(case.expect()[0]).any()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, -np.inf])
@pytest.mark.parametrize("name", ["blocks", "no blocks", "depthwise"])
def test_fused_convolution_shows_what_is_no_number_in_what_is_added(
    bench: Any, name: str, bad: float
) -> None:
    case = Case(bench, FusedWeightedSpec(SPECS[name], True, True))
    case.added.flat[7] = bad
    result = case.run()[0]
    assert np.flatnonzero(np.isnan(result)).tolist() == [7]


@pytest.mark.parametrize("name", ["blocks", "groups", "product"])
def test_fused_operation_in_bf16_shows_a_nan(bf16_bench: Any, name: str) -> None:
    case = Case(bf16_bench, FusedWeightedSpec(SPECS[name], False, True))
    case.values[0].flat[5] = np.nan
    np.testing.assert_array_equal(np.isnan(case.run()[0]), np.isnan(case.expect()[0]))


def test_fused_convolution_whose_gradient_is_not_offered_has_the_references(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = type(bench.engine.binding)
    describe = binding.describe

    def describe_no_gradient(self: Any, kind: str, *arguments: Any, **options: Any) -> Any:
        if kind.startswith("convolution_backward"):
            raise NotOffered
        return describe(self, kind, *arguments, **options)

    monkeypatch.setattr(binding, "describe", describe_no_gradient)
    bench.engine = create_engine("onednn")  # what an engine lacks it tells once
    Case(bench, FusedWeightedSpec(SPECS["blocks"], True, True)).check()


def test_fused_convolution_in_bf16_that_has_no_fast_code_is_computed_in_float32(
    bf16_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = type(bf16_bench.engine.binding)
    describe = binding.describe

    def describe_not_in_bf16(self: Any, kind: str, *arguments: Any, **options: Any) -> Any:
        found = describe(self, kind, *arguments, **options)
        if kind == "convolution_forward" and found.layout(WEIGHTS).type == BF16:
            raise NotOffered
        return found

    monkeypatch.setattr(binding, "describe", describe_not_in_bf16)
    bf16_bench.engine = create_engine("onednn", "BF16")
    Case(bf16_bench, FusedWeightedSpec(SPECS["blocks"], True, True)).check(*[1e-5] * 5)


def test_convolution_that_onednn_does_by_a_product_of_matrices_is_not_offered(bench: Any) -> None:
    """A kernel of 1 by 1 with padding: a plain loop would do what comes behind."""
    spec = ConvolutionSpec((2, 64, 5, 5), (32, 64, 1, 1), (2, 32, 7, 7), 1, (1, 1), (1, 1), (1, 1))
    assert "gemm" in bench.engine.create(spec).what.implementation()
    for adds in (False, True):
        with pytest.raises(NotOffered):
            bench.engine.create_own(FusedWeightedSpec(spec, adds, True))


def test_inner_product_with_a_blob_added_is_not_offered(bench: Any) -> None:
    with pytest.raises(NotOffered):
        bench.engine.create_own(FusedWeightedSpec(SPECS["product"], True, True))


@pytest.mark.parametrize("wanted", [[True, True], [True, False], [False, True]])
@pytest.mark.parametrize(
    "layouts",
    [("plain", "plain"), ("blocked", "blocked"), ("plain", "blocked"), ("channels last", "blocked")],
)
@pytest.mark.parametrize("kind", ["bench", "bf16_bench"])
def test_sum_with_relu_gives_what_one_after_the_other_gives(
    request: pytest.FixtureRequest, kind: str, layouts: tuple[str, str], wanted: list[bool]
) -> None:
    rig = request.getfixturevalue(kind)
    xs, y_diff = [rig.normal(*SHAPE) for _ in layouts], rig.normal(*SHAPE)
    blobs = [rig.blob(x, layout) for x, layout in zip(xs, layouts, strict=True)]
    y = Blob(SHAPE)
    operation = rig.engine.create_own(FusedSumSpec(EltwiseSpec(SHAPE, "SUM", (1.0, 1.0))))
    operation.forward(blobs, y)
    assert any(isinstance(memory, Layout) for memory in y.data_tensor.storage.valid) == ("blocked" in layouts)
    rig.expect(y.read_data(), np.maximum(xs[0] + xs[1], 0))
    y.diff[...] = y_diff
    operation.backward(blobs, y, wanted)
    for blob, is_wanted in zip(blobs, wanted, strict=True):
        if is_wanted:
            rig.expect(blob.diff, y_diff * (xs[0] + xs[1] > 0))
        else:
            assert np.isnan(blob.diff).all()


@pytest.mark.parametrize(
    "spec",
    [
        EltwiseSpec(SHAPE, "SUM", (1.0, -1.0)),
        EltwiseSpec(SHAPE, "SUM", (1.0, 1.0, 1.0)),
        EltwiseSpec(SHAPE, "PROD", (1.0, 1.0)),
        EltwiseSpec(SHAPE, "MAX", (1.0, 1.0)),
    ],
)
def test_other_eltwise_operations_with_relu_are_not_offered(bench: Any, spec: EltwiseSpec) -> None:
    with pytest.raises(NotOffered):
        bench.engine.create_own(FusedSumSpec(spec))
