"""In float32 ../reference/test_convolution.py tests the same; here it is about 16 bits and what cuDNN refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.convolution import Convolution
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ConvolutionSpec, Wanted
from tests.core.engines.cudnn.conftest import Bench
from tests.played.cudnn_descriptors import Refused

PLAIN = ConvolutionSpec((2, 3, 6, 5), (4, 3, 3, 3), (2, 4, 6, 5), 1, (1, 1), (1, 1), (1, 1))
SPECS = {
    "plain": PLAIN,
    "grouped": ConvolutionSpec((2, 4, 7, 6), (6, 2, 3, 2), (2, 6, 3, 3), 1, (2, 2), (1, 0), (2, 1), 2),
    "depthwise": ConvolutionSpec(
        (2, 3, 4, 4), (3, 1, 3, 3), (2, 3, 4, 4), 1, (1, 1), (1, 1), (1, 1), 3, False
    ),
    "one axis": ConvolutionSpec((2, 3, 9), (4, 3, 4), (2, 4, 4), 1, (2,), (1,), (1,)),
    "three axes": ConvolutionSpec(
        (1, 2, 4, 3, 4), (2, 2, 2, 2, 3), (1, 2, 3, 2, 2), 1, (1,) * 3, (0,) * 3, (1,) * 3
    ),
    "two outer axes": ConvolutionSpec(
        (2, 2, 3, 4, 4), (2, 3, 1, 1), (2, 2, 2, 4, 4), 2, (1, 1), (0, 0), (1, 1)
    ),
    "transposed": ConvolutionSpec(
        (2, 4, 3, 3), (4, 3, 2, 2), (2, 3, 6, 6), 1, (2, 2), (0, 0), (1, 1), transposed=True
    ),
}


def run_both(
    bench: Bench, spec: ConvolutionSpec, times: int = 1, diff: float = 0.0, **choices: Any
) -> tuple[list[Blob], list[Blob]]:
    """Run the engine and the reference; return x, weight, bias and y of each."""
    num_outputs = spec.y_shape[spec.axis]
    shapes = spec.x_shape, spec.weight_shape, (num_outputs,)
    blobs = [bench.pair(bench.normal(*shape), diff) for shape in shapes]
    y, y_exact = bench.pair(np.zeros(spec.y_shape), bench.normal(*spec.y_shape))
    mine, exact = ([pair[k] for pair in blobs] for k in range(2))
    for operands, operation in (
        ([*mine, y], bench.engine.create(spec)),
        ([*exact, y_exact], bench.reference.create(spec)),
    ):
        x, weight, bias, top = operands
        for _ in range(times):
            operation.forward(x, weight, bias if spec.bias else None, top)
            operation.backward(x, weight, bias if spec.bias else None, top, Wanted(bias=spec.bias))
    return [*mine, y], [*exact, y_exact]


def expect_equal(bench: Bench, mine: list[Blob], exact: list[Blob], factor: float = 1.0) -> None:
    for actual, expected in zip(mine[:3], exact[:3], strict=True):
        bench.expect(actual.diff, expected.diff, factor)
    bench.expect(mine[3].data, exact[3].data, factor)


@pytest.mark.parametrize("name", SPECS)
def test_convolution_in_each_precision_is_the_references(bench: Bench, name: str) -> None:
    expect_equal(bench, *run_both(bench, SPECS[name]))


def test_convolution_adds_to_the_gradients_of_params(bench: Bench) -> None:
    expect_equal(bench, *run_both(bench, PLAIN, times=2, diff=1.5), factor=2)


def test_convolution_in_16_bits_leaves_values_with_channels_last(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    (x, weight, _, y), _ = run_both(bench, PLAIN)
    assert bench.is_last(y.data_tensor, y.shape)
    assert bench.is_last(x.diff_tensor, x.shape)
    plain = bench.engine.memories.plain
    assert weight.diff_tensor.storage.valid == {plain}
    assert weight.diff_tensor.storage.copies[plain].dtype == np.float32


def test_convolution_without_code_in_16_bits_is_computed_in_float32(
    make_bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench("BF16", refused_in_halves=("ConvolutionForward",))
    bench.tolerance = 1e-6
    with caplog.at_level(logging.INFO):
        expect_equal(bench, *run_both(bench, PLAIN))
    assert caplog.messages == [
        "engine cudnn has no Convolution that cudnnFindConvolutionForwardAlgorithmEx supports in BF16; that is"
        " computed in float32"
    ]


@pytest.mark.parametrize("direction", ["Forward", "BackwardData", "BackwardFilter"])
def test_convolution_that_cudnn_refuses_is_the_fallbacks(
    make_bench: Callable[..., Bench], direction: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(refused=(f"FindConvolution{direction}AlgorithmEx",))
    with caplog.at_level(logging.INFO):
        expect_equal(bench, *run_both(bench, PLAIN, times=2, diff=0.5), factor=4)
    assert caplog.messages == [
        f"engine cudnn has no Convolution that cudnnFindConvolution{direction}AlgorithmEx supports; engine cupy"
        " runs it"
    ]


def test_convolution_computes_what_is_wanted_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    blobs = [bench.pair(bench.normal(*shape), 7.0)[0] for shape in (PLAIN.x_shape, PLAIN.weight_shape, (4,))]
    y = bench.pair(np.zeros(PLAIN.y_shape), bench.normal(*PLAIN.y_shape))[0]
    operation = bench.engine.create(PLAIN)
    operation.forward(*blobs, y)
    operation.backward(*blobs, y, Wanted(False, False, False))
    assert all(np.all(blob.diff == 7) for blob in blobs)


def test_convolution_over_four_axes_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    engine = make_bench().engine
    spec = ConvolutionSpec(
        (1, 1, 2, 2, 2, 2), (1, 1, 1, 1, 1, 1), (1, 1, 2, 2, 2, 2), 1, (1,) * 4, (0,) * 4, (1,) * 4
    )
    with pytest.raises(NotOffered, match="over 4 spatial axes"):
        Convolution(spec, engine)


def test_convolution_that_cudnn_takes_for_a_mistake_is_the_fallbacks(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(refused=("FindConvolutionForwardAlgorithmEx",))
    bench.played.refusal = Mistaken
    expect_equal(bench, *run_both(bench, PLAIN), factor=4)
    assert bench.played.calls["FindConvolutionForwardAlgorithmEx"] == 1


class Mistaken(Refused):
    status = 2003


def test_convolution_of_halves_sums_up_biases_in_float32(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    mine, exact = run_both(bench, PLAIN, times=2, diff=0.5)
    expect_equal(bench, mine, exact, factor=2)
    np.testing.assert_allclose(mine[2].diff, exact[2].diff, rtol=1e-5)
