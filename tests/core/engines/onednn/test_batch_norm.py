from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn import batch_norm
from dtrain.core.engines.operations import BatchNormSpec, FusedBatchNormSpec, Wanted
from dtrain.core.memory_pool import MemoryPool

Array = NDArray[Any]
ALL = Wanted(x=True, weight=True, bias=True)


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_batch_norm_in_each_layout_gives_what_the_reference_gives(
    bench: Any, layout: str, in_place: bool, batch_statistics: bool
) -> None:
    spec = BatchNormSpec((4, 20, 3, 5), 1e-3, batch_statistics)
    given = bench.normal(20), 0.5 + np.abs(bench.normal(20))
    statistics = []

    def run(operation: Any, x: Blob, y: Blob) -> None:
        blobs = [Blob((20,), x.dtype) for _ in range(2)]
        for blob, values in zip(blobs, given, strict=True):
            blob.data[...] = values
        operation.forward(x, y, *blobs)
        statistics.append([blob.data.copy() for blob in blobs])
        for blob in blobs:
            blob.data[...] = np.nan  # backward must not need them again

    bench.check_unary(spec, layout, run, in_place)
    for expected, actual in zip(*statistics, strict=True):
        bench.expect(actual, expected)


def test_batch_norm_in_place_does_not_mind_what_is_written_over_y(bench: Any) -> None:
    spec = BatchNormSpec((4, 20, 3, 5), 1e-3, True)
    x, y_diff = bench.normal(*spec.x_shape), bench.normal(*spec.x_shape)
    diffs = []
    for engine, blob in ((bench.reference, bench.exact(x)), (bench.engine, bench.blob(x, "blocked"))):
        operation = engine.create(spec)
        operation.forward(blob, blob, *(Blob((20,), blob.dtype) for _ in range(2)))
        blob.data[...] = -7
        blob.diff[...] = y_diff
        operation.backward(blob, blob)
        diffs.append(blob.diff)
    bench.expect(diffs[1], diffs[0])


def column(values: Array, num_axes: int) -> Array:
    """Return numbers of channels so that they go with values of so many axes."""
    return values.reshape(1, -1, *[1] * (num_axes - 2))


class Case:
    """A fused operation beside what BatchNorm, Scale and ReLU of the reference engine give, in float64."""

    def __init__(self, bench: Any, spec: FusedBatchNormSpec, x: Array | None = None) -> None:
        self.bench, self.spec = bench, spec
        shape = spec.norm.x_shape
        channels = shape[1]
        self.x = bench.normal(*shape) if x is None else x
        self.y_diff = bench.normal(*shape)
        self.mean, self.variance = bench.normal(channels), 0.5 + np.abs(bench.normal(channels))
        self.scale = 1 + bench.normal(channels) if spec.scale else np.ones(channels)
        self.shift = bench.normal(channels) if spec.shift else np.zeros(channels)
        self.before = bench.normal(channels)  # gradients are added to

    def run_reference(self) -> list[Array]:
        """Return y, dx, and the diffs of scale and shift."""
        num_axes = self.x.ndim
        operation = self.bench.reference.create(self.spec.norm)
        x, y = self.bench.exact(self.x), self.bench.exact(self.x)
        operation.forward(x, y, self.bench.exact(self.mean), self.bench.exact(self.variance))
        normalised = y.data.copy()
        scaled = normalised * column(self.scale, num_axes) + column(self.shift, num_axes)
        y_diff = self.y_diff * (scaled > 0) if self.spec.relu else self.y_diff
        y.diff[...] = y_diff * column(self.scale, num_axes)
        operation.backward(x, y)
        axes = (0, *range(2, num_axes))
        gradients = (y_diff * normalised).sum(axis=axes), y_diff.sum(axis=axes)
        values = np.maximum(scaled, 0) if self.spec.relu else scaled
        return [values, x.diff, *(self.before + gradient for gradient in gradients)]

    def prepare(self, layout: str, in_place: bool) -> None:
        """Have the operation, and blobs for it."""
        self.operation = self.bench.engine.create(self.spec)
        self.own_x = self.bench.blob(self.x, layout)
        self.own_y = self.own_x if in_place else Blob(self.x.shape)
        self.params = [Blob((len(self.scale),)) for _ in range(4)]
        given = self.mean, self.variance, self.scale, self.shift
        for blob, values in zip(self.params, given, strict=True):
            blob.data[...], blob.diff[...] = values, self.before
        self.learned = [
            blob if is_learned else None
            for blob, is_learned in zip(self.params[2:], (self.spec.scale, self.spec.shift), strict=True)
        ]

    def forward(self, keeps: bool = True) -> Array:
        """Run forward and return y."""
        self.operation.forward(self.own_x, self.own_y, *self.params[:2], *self.learned, keeps)
        y: Array = self.own_y.read_data().copy()
        return y

    def backward(self, wanted: Wanted = ALL) -> Array:
        """Run backward and return dx."""
        self.own_y.write_diff()[...] = self.y_diff
        self.operation.backward(self.own_x, self.own_y, *self.learned, wanted)
        x_diff: Array = self.own_x.read_diff().copy()
        return x_diff

    def check(self, layout: str, in_place: bool) -> None:
        """Compare two passes."""
        y, x_diff, *gradients = self.run_reference()
        self.prepare(layout, in_place)
        for _ in range(2):
            self.bench.expect(self.forward(), y)
            self.bench.expect(self.backward(), x_diff)
            for param, gradient in zip(self.learned, gradients, strict=True):
                if param is not None:
                    self.bench.expect(param.diff, gradient)
                    param.diff[...] = self.before
            self.own_x.write_data()[...] = self.x
            self.bench.place(self.own_x.data_tensor, layout)


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize(
    "parts",
    ["scale shift", "scale relu", "scale shift relu", "relu"],
    ids=lambda parts: parts.replace(" ", "-"),
)
def test_fused_batch_norm_gives_what_norm_scale_and_relu_of_the_reference_give(
    bench: Any, layout: str, in_place: bool, batch_statistics: bool, parts: str
) -> None:
    norm = BatchNormSpec((4, 32, 3, 5), 1e-3, batch_statistics)
    spec = FusedBatchNormSpec(norm, *(part in parts.split() for part in ("scale", "shift", "relu")))
    Case(bench, spec).check(layout, in_place)


@pytest.mark.parametrize("shape", [(6, 20), (4, 20, 3, 5), (4, 16, 7), (2, 8, 3, 2, 4)], ids=str)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_fused_batch_norm_of_any_shape_gives_what_the_reference_gives(
    bench: Any, shape: tuple[int, ...], in_place: bool, batch_statistics: bool
) -> None:
    norm = BatchNormSpec(shape, 1e-3, batch_statistics)
    Case(bench, FusedBatchNormSpec(norm, relu=True)).check("plain", in_place)


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
@pytest.mark.parametrize("num_channels", [20, 32])
@pytest.mark.parametrize("in_place", [False, True])
def test_fused_batch_norm_in_bf16_gives_what_the_reference_gives(
    bf16_bench: Any, layout: str, num_channels: int, in_place: bool
) -> None:
    norm = BatchNormSpec((4, num_channels, 3, 5), 1e-3, batch_statistics=True)
    case = Case(bf16_bench, FusedBatchNormSpec(norm, relu=True))
    case.check(layout, in_place)


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fused_batch_norm_with_relu_lets_a_number_that_is_none_be_seen(
    bench: Any, layout: str, in_place: bool, batch_statistics: bool, bad: float
) -> None:
    norm = BatchNormSpec((4, 32, 3, 5), 1e-3, batch_statistics)
    x = bench.normal(*norm.x_shape)
    x[1, 7, 2, 3] = bad
    case = Case(bench, FusedBatchNormSpec(norm, relu=True), x)
    with np.errstate(all="ignore"):
        y, *_ = case.run_reference()
    case.prepare(layout, in_place)
    found = case.forward()
    if batch_statistics:
        assert np.isnan(found[:, 7]).all(), "its channel has no mean"
        assert np.isnan(y[:, 7]).all()
        case.backward()
        assert np.isnan(case.params[2].diff[7]), "nor has the factor a gradient"
    others = np.delete(found, 7, axis=1)
    bench.expect(others, np.delete(y, 7, axis=1))
    if not batch_statistics:
        expected = bad * case.scale[7]
        may_be = {"nan": [np.nan], "inf": [np.inf], "-inf": [0.0, np.nan]}[str(expected)]
        assert any(np.array_equal(found[1, 7, 2, 3], value, equal_nan=True) for value in may_be)
    case.own_x.write_data()[...] = 1 + np.abs(bench.normal(*norm.x_shape))  # it was once only
    assert np.isfinite(case.forward()).all()
    assert np.isfinite(case.backward()).all()


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("which", [2, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fused_batch_norm_with_relu_lets_a_param_that_is_no_number_be_seen(
    bench: Any, layout: str, which: int, bad: float
) -> None:
    case = Case(bench, FusedBatchNormSpec(BatchNormSpec((4, 32, 3, 5), 1e-3, True), relu=True))
    case.prepare(layout, in_place=False)
    case.params[which].data[5] = bad
    assert not np.isfinite(case.forward()[:, 5]).all()


@pytest.mark.parametrize("eps", [0.0, -1e-3])
def test_fused_batch_norm_with_relu_of_equal_values_and_no_eps_lets_it_be_seen(
    bench: Any, eps: float
) -> None:
    x = bench.normal(4, 32, 3, 5)
    x[:, 3] = 2
    case = Case(bench, FusedBatchNormSpec(BatchNormSpec(x.shape, eps, True), relu=True), x)
    case.prepare("blocked", in_place=False)
    assert np.isnan(case.forward()[:, 3]).all(), "0 / 0, or the root of a negative number"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", ["plain", "blocked"])
def test_fused_batch_norm_with_relu_of_numbers_whose_squares_are_none_gives_what_the_reference_gives(
    bench: Any, layout: str
) -> None:
    case = Case(bench, FusedBatchNormSpec(BatchNormSpec((4, 32, 3, 5), 1e-3, True), relu=True))
    case.shift[5] = 3e19
    y, x_diff, *_ = case.run_reference()
    case.prepare(layout, in_place=True)
    found = case.forward()
    np.testing.assert_allclose(found[:, 5], y[:, 5], rtol=1e-6)
    bench.expect(np.delete(found, 5, axis=1), np.delete(y, 5, axis=1))
    bench.expect(case.backward(), x_diff)


def test_fused_batch_norm_gives_no_gradient_that_nobody_wants(bench: Any) -> None:
    case = Case(bench, FusedBatchNormSpec(BatchNormSpec((4, 32, 3, 5), 1e-3, True), relu=True))
    case.prepare("blocked", in_place=True)
    case.forward()
    case.backward(Wanted(x=True, weight=False, bias=False))
    for param in case.params[2:]:
        bench.expect(param.diff, case.before)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", ["plain", "blocked"])
def test_fused_batch_norm_in_place_without_backward_keeps_nothing(
    bench: Any, relu: bool, layout: str
) -> None:
    pool = MemoryPool()
    case = Case(bench, FusedBatchNormSpec(BatchNormSpec((4, 32, 3, 5), 1e-3, True), relu=relu))
    expected, *_ = case.run_reference()
    case.prepare(layout, in_place=True)
    case.own_x = case.own_y = Blob(case.x.shape)
    case.own_x.data_tensor.storage.borrow_from(pool)
    case.own_x.write_data()[...] = case.x
    bench.place(case.own_x.data_tensor, layout)
    case.own_x.data_tensor.storage.drop_void()
    lent = pool.lent_bytes
    bench.expect(case.forward(keeps=False), expected)
    case.own_x.data_tensor.storage.drop_void()
    assert pool.lent_bytes <= max(
        lent, 2 * 4 * case.x.size
    )  # its values, where they were and where we look at them
    case.own_x.data_tensor.storage.give_back("data")
    assert pool.lent_bytes == 0


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
def test_batch_norm_in_place_leaves_x_where_it_is_until_backward_is_done(bench: Any, layout: str) -> None:
    spec = BatchNormSpec((4, 32, 3, 5), 1e-3, True)
    operation, blob, memory = (
        bench.engine.create(spec),
        Blob(spec.x_shape),
        bench.memory(layout, spec.x_shape),
    )
    pool = MemoryPool()
    blob.data_tensor.storage.borrow_from(pool)
    values = blob.write_data(memory)
    values[...] = x = bench.normal(values.size).astype(np.float32)
    alone = pool.lent_bytes
    operation.forward(blob, blob, Blob((32,)), Blob((32,)))
    np.testing.assert_array_equal(values, x)
    assert pool.lent_bytes == 2 * alone
    assert blob.read_data(memory) is not values
    blob.write_diff(memory)[...] = 1
    operation.backward(blob, blob)
    assert pool.lent_bytes == alone


def test_batch_norm_compiles_nothing_before_it_runs(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(batch_norm.dnn, "Primitive", lambda *args: made.append(args))
    norm = BatchNormSpec((4, 32, 3, 5), 1e-3, True)
    for spec in (norm, FusedBatchNormSpec(norm, relu=True)):
        bench.engine.create(spec)
    assert not made
