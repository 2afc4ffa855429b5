from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn.binding import BF16, WEIGHTS
from dtrain.core.engines.onednn.convolution import Convolution
from dtrain.core.engines.onednn.layout_costs import BLOCKED, LAST
from dtrain.core.engines.operations import ConvolutionSpec, Wanted
from tests.core.engines.onednn.conftest import BF16_ROUNDOFF

# x_shape, weight_shape, y_shape, axis, stride, pad, dilation, group
SPECS = {
    "image": ConvolutionSpec((2, 3, 9, 9), (32, 3, 5, 5), (2, 32, 9, 9), 1, (1, 1), (2, 2), (1, 1)),
    "blocks": ConvolutionSpec((2, 32, 7, 8), (48, 32, 3, 3), (2, 48, 4, 4), 1, (2, 2), (1, 1), (1, 1)),
    "no blocks": ConvolutionSpec((2, 20, 8, 8), (50, 20, 5, 5), (2, 50, 4, 4), 1, (1, 1), (0, 0), (1, 1)),
    "rows of pages": ConvolutionSpec(
        (1, 1024, 3, 2), (20, 1024, 1, 1), (1, 20, 3, 2), 1, (1, 1), (0, 0), (1, 1)
    ),
    "rest left out": ConvolutionSpec((1, 16, 8, 8), (16, 16, 3, 3), (1, 16, 3, 3), 1, (3, 3), (1, 1), (1, 1)),
    "groups": ConvolutionSpec((2, 32, 6, 6), (64, 16, 3, 3), (2, 64, 6, 6), 1, (1, 1), (1, 1), (1, 1), 2),
    "depthwise": ConvolutionSpec((2, 20, 6, 6), (20, 1, 3, 3), (2, 20, 6, 6), 1, (1, 1), (1, 1), (1, 1), 20),
    "dilated": ConvolutionSpec((1, 16, 9, 9), (16, 16, 3, 3), (1, 16, 5, 3), 1, (1, 1), (0, 0), (2, 3)),
    "volume": ConvolutionSpec(
        (1, 16, 4, 5, 6), (16, 16, 2, 3, 3), (1, 16, 3, 3, 4), 1, (1, 1, 1), (0, 0, 0), (1, 1, 1)
    ),
    "row": ConvolutionSpec((2, 16, 12), (20, 16, 3), (2, 20, 12), 1, (1,), (1,), (1,)),
    "transposed": ConvolutionSpec(
        (2, 32, 4, 4), (32, 16, 4, 4), (2, 16, 8, 8), 1, (2, 2), (1, 1), (1, 1), transposed=True
    ),
    "transposed groups": ConvolutionSpec(
        (2, 20, 4, 4), (20, 1, 4, 4), (2, 20, 8, 8), 1, (2, 2), (1, 1), (1, 1), 20, transposed=True
    ),
}


class Operands:
    """The four blobs of a convolution, float32 for oneDNN or float64 for the reference."""

    def __init__(self, spec: ConvolutionSpec, values: list[Any], dtype: Any) -> None:
        self.blobs = [Blob(array.shape, dtype) for array in values]
        for blob, array in zip(self.blobs, values, strict=True):
            blob.data[...], blob.diff[...] = array, 0.5
        self.y = Blob(spec.y_shape, dtype)

    def run(self, operation: Any, y_diff: Any, wanted: Wanted) -> list[Any]:
        """Return y and the diffs."""
        operation.forward(*self.blobs, self.y)
        y = self.y.data.copy()
        self.y.diff[...] = y_diff
        operation.backward(*self.blobs, self.y, wanted)
        return [y, *(blob.diff for blob in self.blobs)]


def draw(bench: Any, spec: ConvolutionSpec) -> list[Any]:
    return [bench.normal(*shape) for shape in (spec.x_shape, spec.weight_shape, (spec.y_shape[1],))]


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(x=False), Wanted(weight=False), Wanted(bias=False)])
@pytest.mark.parametrize("name", SPECS)
def test_convolution_gives_what_the_reference_gives(bench: Any, name: str, wanted: Wanted) -> None:
    spec = SPECS[name]
    values, y_diff = draw(bench, spec), bench.normal(*spec.y_shape)
    operation = bench.engine.create(spec)
    assert isinstance(operation, Convolution)
    expected = Operands(spec, values, np.float64).run(bench.reference.create(spec), y_diff, wanted)
    actual = Operands(spec, values, np.float32).run(operation, y_diff, wanted)
    for one, other in zip(actual, expected, strict=True):
        bench.expect(one, other)


@pytest.mark.parametrize("name", SPECS)
def test_convolution_in_bf16_rounds_what_it_leaves_in_layouts_and_nothing_else(
    bf16_bench: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Operands are such as bf16 holds, so that y and x.diff are off by one rounding; sums are float32."""
    spec = SPECS[name]
    values, y_diff = draw(bf16_bench, spec), bf16_bench.normal(*spec.y_shape)
    expected = Operands(spec, values, np.float64).run(bf16_bench.reference.create(spec), y_diff, Wanted())
    with caplog.at_level(logging.INFO):
        operands = Operands(spec, values, np.float32)
        actual = operands.run(bf16_bench.engine.create(spec), y_diff, Wanted())
    tolerances = BF16_ROUNDOFF, BF16_ROUNDOFF, 1e-5, 1e-5
    for one, other, tolerance in zip(actual, expected, tolerances, strict=True):
        bf16_bench.expect(one, other, tolerance)
    assert not np.array_equal(actual[0], expected[0].astype(np.float32))
    assert not caplog.messages


def test_convolution_in_bf16_leaves_its_results_in_half_the_bytes(bench: Any, bf16_bench: Any) -> None:
    spec, sizes = SPECS["blocks"], []
    for each in (bench, bf16_bench):
        operands = Operands(spec, draw(each, spec), np.float32)
        operation = each.engine.create(spec)
        operation.forward(*operands.blobs, operands.y)
        sizes.append(operands.y.read_data(operation.y_memory).nbytes)
    assert sizes[1] * 2 == sizes[0]


BLIND = {
    "taps beyond a narrow image": ConvolutionSpec(
        (1, 24, 5, 2), (3, 24, 1, 3), (1, 3, 5, 1), 1, (1, 3), (0, 1), (2, 1)
    ),
    "a stride over all that there is": ConvolutionSpec(
        (3, 16, 5, 2), (10, 16, 4, 3), (3, 10, 1, 2), 1, (2, 3), (0, 2), (1, 1)
    ),
    "a volume of less depth than the kernel": ConvolutionSpec(
        (3, 16, 2, 6, 3), (16, 16, 3, 1, 2), (3, 16, 2, 3, 2), 1, (1, 2, 3), (1, 0, 1), (1, 1, 1)
    ),
    "a transposed one of that kind": ConvolutionSpec(
        (3, 4, 2, 1, 4),
        (4, 20, 2, 2, 2),
        (3, 20, 1, 2, 6),
        1,
        (1,) * 3,
        (1, 0, 0),
        (1, 1, 2),
        transposed=True,
    ),
}


@pytest.mark.parametrize("name", BLIND)
def test_convolution_whose_gradient_is_wrong_in_bf16_is_computed_in_float32(
    bf16_bench: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    spec, engine = BLIND[name], create_engine("onednn", "BF16")
    values, y_diff = draw(bf16_bench, spec), bf16_bench.normal(*spec.y_shape)
    expected = Operands(spec, values, np.float64).run(bf16_bench.reference.create(spec), y_diff, Wanted())
    with caplog.at_level(logging.INFO):
        actual = Operands(spec, values, np.float32).run(engine.create(spec), y_diff, Wanted())
    for one, other in zip(actual, expected, strict=True):
        bf16_bench.expect(one, other, 1e-5)
    kind = "Deconvolution" if spec.transposed else "Convolution"
    limits = "of windows that see little but padding"
    assert caplog.messages == [f"engine onednn has no {kind} {limits} in bf16; that is computed in float32"]


@pytest.mark.parametrize("refused", ["forward", "backward_data"])
def test_convolution_that_has_no_fast_code_in_bf16_is_computed_in_float32(
    bf16_bench: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refused: str
) -> None:
    engine = create_engine("onednn", "BF16")
    binding = type(bf16_bench.engine.binding)
    describe = binding.describe

    def describe_not_in_bf16(self: Any, kind: str, *arguments: Any, **options: Any) -> Any:
        found = describe(self, kind, *arguments, **options)
        if kind == f"convolution_{refused}" and found.layout(WEIGHTS).type == BF16:
            raise NotOffered
        return found

    monkeypatch.setattr(binding, "describe", describe_not_in_bf16)
    spec = SPECS["blocks"]
    values, y_diff = draw(bf16_bench, spec), bf16_bench.normal(*spec.y_shape)
    expected = Operands(spec, values, np.float64).run(bf16_bench.reference.create(spec), y_diff, Wanted())
    with caplog.at_level(logging.INFO):
        actual = Operands(spec, values, np.float32).run(engine.create(spec), y_diff, Wanted())
    for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
        bf16_bench.expect(one, other, BF16_ROUNDOFF if i == 0 and refused != "forward" else 1e-5)
    kind = "Convolution" if refused == "forward" else "gradient of this Convolution"
    assert caplog.messages == [f"engine onednn has no {kind} in bf16; that is computed in float32"]


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
def test_convolution_takes_x_and_the_diff_of_y_from_each_layout(bench: Any, layout: str) -> None:
    spec = SPECS["blocks"]
    values, y_diff = draw(bench, spec), bench.normal(*spec.y_shape)
    expected = Operands(spec, values, np.float64).run(bench.reference.create(spec), y_diff, Wanted())
    operands = Operands(spec, values, np.float32)
    operation = bench.engine.create(spec)
    bench.place(operands.blobs[0].data_tensor, layout)
    operation.forward(*operands.blobs, operands.y)
    operands.y.diff[...] = y_diff
    bench.place(operands.y.diff_tensor, layout)
    operation.backward(*operands.blobs, operands.y, Wanted())
    actual = [operands.y.data, *(blob.diff for blob in operands.blobs)]
    for one, other in zip(actual, expected, strict=True):
        bench.expect(one, other)


def test_convolution_reorders_the_weight_once_per_change(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS["blocks"]
    x, weight, bias, y = (
        Blob(shape) for shape in (spec.x_shape, spec.weight_shape, (spec.y_shape[1],), spec.y_shape)
    )
    operation = bench.engine.create(spec)
    shapes = []
    reorder = type(operation.weight_memory).from_host

    def count(self: Any, host: Any, storage: Any) -> None:
        shapes.append(self.shape)
        reorder(self, host, storage)

    monkeypatch.setattr(type(operation.weight_memory), "from_host", count)
    x.write_data()[...], bias.write_data()[...] = 1, 0
    for weight_value in (1.0, 2.0):
        weight.write_data()[...] = weight_value  # what an update does
        for _ in range(3):
            operation.forward(x, weight, bias, y)
        # One place well inside sees 32 channels of 3 x 3.
        assert y.read_data()[0, 0, 1, 1] == weight_value * 32 * 9
    assert shapes.count(spec.weight_shape) == 2


def test_convolution_asks_for_channels_last_where_blocks_would_be_filled_up(bench: Any) -> None:
    plain_last = SPECS["no blocks"]
    operation = Convolution(plain_last, bench.engine)
    assert operation.x_memory is bench.memory("channels last", plain_last.x_shape)
    assert operation.y_memory is bench.memory("channels last", plain_last.y_shape)


@pytest.mark.parametrize("benches", ["bench", "bf16_bench"])
@pytest.mark.parametrize(("outputs", "kernel", "is_direct"), [(50, 5, True), (48, 5, False), (50, 1, False)])
def test_convolution_whose_channels_leave_a_rest_is_not_done_by_small_products(
    request: pytest.FixtureRequest, benches: str, outputs: int, kernel: int, is_direct: bool
) -> None:
    engine = request.getfixturevalue(benches).engine
    if not engine.binding.library.has_bf16:
        pytest.skip("it is so on CPUs with avx512_bf16")
    spec = replace(
        SPECS["no blocks"],
        weight_shape=(outputs, 20, kernel, kernel),
        y_shape=(2, outputs, 9 - kernel, 9 - kernel),
    )
    operation = engine.create(spec)
    operation.work_in(LAST)
    assert ("brgconv" in operation.what.implementation()) == (not is_direct)


def test_convolution_over_four_axes_is_not_offered(bench: Any) -> None:
    ones = (1,) * 4
    spec = ConvolutionSpec((1, 1, *ones), (1, 1, *ones), (1, 1, *ones), 1, ones, (0,) * 4, ones)
    with pytest.raises(NotOffered, match="over 4 spatial axes"):
        Convolution(spec, bench.engine)


def test_convolution_without_bias_leaves_none_out(bench: Any) -> None:
    spec = replace(SPECS["image"], bias=False)
    x, weight, _ = draw(bench, spec)
    results = []
    for engine, dtype in ((bench.reference, np.float64), (bench.engine, np.float32)):
        blobs = Operands(spec, [x, weight], dtype)
        operation = engine.create(spec)
        operation.forward(*blobs.blobs, None, blobs.y)
        blobs.y.diff[...] = 1
        operation.backward(*blobs.blobs, None, blobs.y, Wanted())
        results.append([blobs.y.data, blobs.blobs[0].diff, blobs.blobs[1].diff])
    for expected, actual in zip(*results, strict=True):
        bench.expect(actual, expected)


def test_convolution_whose_gradient_is_not_offered_has_the_references(
    bench: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    binding = type(bench.engine.binding)
    describe = binding.describe

    def describe_forward_only(self: Any, kind: str, *arguments: Any, **options: Any) -> Any:
        if "backward" in kind:
            raise NotOffered
        return describe(self, kind, *arguments, **options)

    monkeypatch.setattr(binding, "describe", describe_forward_only)
    spec = SPECS["blocks"]
    values, y_diff = draw(bench, spec), bench.normal(*spec.y_shape)
    expected = Operands(spec, values, np.float64).run(bench.reference.create(spec), y_diff, Wanted())
    with caplog.at_level(logging.INFO):
        actual = Operands(spec, values, np.float32).run(Convolution(spec, bench.engine), y_diff, Wanted())
    for one, other in zip(actual, expected, strict=True):
        bench.expect(one, other)
    line = "engine onednn has no gradient of this Convolution; engine reference runs it"
    assert caplog.messages == [line]


def test_convolution_with_a_depth_whose_gradient_is_wrong_is_not_offered(bench: Any) -> None:
    spec = ConvolutionSpec(
        (1, 16, 5, 4, 4), (16, 16, 5, 2, 2), (1, 16, 4, 3, 3), 1, (2, 1, 1), (3, 0, 0), (1, 1, 1)
    )
    with pytest.raises(NotOffered, match="a stride of 2 and a pad of 3 in depth"):
        Convolution(spec, bench.engine)


@pytest.mark.parametrize("layout", [BLOCKED, LAST])
@pytest.mark.parametrize(
    "name", ["image", "blocks", "no blocks", "depthwise", "dilated", "volume", "row", "transposed"]
)
def test_work_in_either_layout_changes_no_result(bench: Any, name: str, layout: str) -> None:
    spec = SPECS[name]
    values, y_diff = draw(bench, spec), bench.normal(*spec.y_shape)
    operation = bench.engine.create(spec)
    operation.work_in({BLOCKED: LAST, LAST: BLOCKED}[layout])
    actual = [Operands(spec, values, np.float32).run(operation, y_diff, Wanted())]
    operation.work_in(layout)
    actual.append(Operands(spec, values, np.float32).run(operation, y_diff, Wanted()))
    last = bench.engine.layouts.memory(bench.engine.layouts.channels_last(spec.y_shape), spec.y_shape)
    is_last = layout == LAST or spec.transposed  # of which, with strides, it likes no blocks
    assert (operation.y_memory is last) == is_last
    expected = Operands(spec, values, np.float64).run(bench.reference.create(spec), y_diff, Wanted())
    for results in actual:
        for one, other in zip(results, expected, strict=True):
            bench.expect(one, other)


def test_work_in_a_layout_without_fast_code_is_in_the_other(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = Convolution._describe_forward

    def lacks(which: set[str]) -> Any:
        def describe_some(operation: Convolution, layout: str) -> Any:
            if layout in which:
                raise NotOffered
            return describe(operation, layout)

        return describe_some

    operation = bench.engine.create(SPECS["no blocks"])
    liked, y_memory = operation.layout, operation.y_memory
    monkeypatch.setattr(Convolution, "_describe_forward", lacks({BLOCKED}))
    operation.work_in(BLOCKED)
    assert (liked, operation.y_memory) == (LAST, y_memory)
    monkeypatch.setattr(Convolution, "_describe_forward", lacks({LAST, BLOCKED}))
    with pytest.raises(NotOffered):
        bench.engine.create_own(SPECS["no blocks"])


def test_convolution_onto_a_padded_rest_of_blocks_is_onednns(bench: Any) -> None:
    """SqueezeNet's last one, for which it has no code with x in blocks and y's channels last."""
    spec = ConvolutionSpec((1, 32, 3, 3), (1000, 32, 1, 1), (1, 1000, 5, 5), 1, (1, 1), (1, 1), (1, 1))
    assert isinstance(bench.engine.create(spec), Convolution)


STRIDED = {
    "1x1": ConvolutionSpec((2, 32, 6, 6), (64, 32, 1, 1), (2, 64, 3, 3), 1, (2, 2), (0, 0), (1, 1)),
    "3x3": ConvolutionSpec((2, 32, 6, 6), (64, 32, 3, 3), (2, 64, 3, 3), 1, (2, 2), (1, 1), (1, 1)),
    "depthwise": ConvolutionSpec((2, 32, 6, 6), (32, 1, 3, 3), (2, 32, 3, 3), 1, (2, 2), (1, 1), (1, 1), 32),
}


@pytest.mark.parametrize("benches", ["bench", "bf16_bench"])
@pytest.mark.parametrize("name", STRIDED)
def test_gradient_of_a_strided_convolution_is_in_the_layout_of_its_data(
    request: pytest.FixtureRequest, name: str, benches: str
) -> None:
    """oneDNN would like channels last, which takes reorders; in bf16 fifty times as long where it is depthwise."""
    bench, spec = request.getfixturevalue(benches), STRIDED[name]
    operation = bench.engine.create(spec)
    x, weight, bias = Operands(spec, draw(bench, spec), np.float32).blobs
    y = Blob(spec.y_shape)
    operation.forward(x, weight, bias, y)
    (memory,) = y.data_tensor.storage.valid
    y.write_diff(memory)[...] = y.read_data(memory)
    operation.backward(x, weight, bias, y, Wanted())
    assert y.diff_tensor.storage.valid == {memory}, "nothing was reordered"
    assert x.diff_tensor.storage.valid < x.data_tensor.storage.valid
    assert operation.layout == BLOCKED
