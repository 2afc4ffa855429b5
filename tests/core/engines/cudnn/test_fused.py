from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import FusedWeightedSpec, InnerProductSpec, Wanted
from tests.core.engines.cudnn.conftest import Bench
from tests.core.engines.cudnn.test_convolution import PLAIN, SPECS

Blobs = list[Blob]


def run_both(bench: Bench, spec: FusedWeightedSpec) -> tuple[Blobs, Blobs]:
    """Run the engine, and the reference's convolution with a sum and a maximum behind; return x … added and y."""
    convolution = spec.operation
    shapes = convolution.x_shape, convolution.weight_shape, (convolution.y_shape[1],), convolution.y_shape
    pairs = [bench.pair(bench.normal(*shape), 1.0) for shape in shapes]
    y, y_exact = bench.pair(np.zeros(convolution.y_shape))
    y_diff = bench.normal(*convolution.y_shape)
    mine, exact = ([pair[k] for pair in pairs] for k in range(2))
    x, weight, bias, added = mine
    biases = (bias if convolution.bias else None), (exact[2] if convolution.bias else None)
    operation = bench.engine.create_own(spec)
    operation.forward(x, weight, biases[0], added if spec.adds else None, y)
    reference = bench.reference.create(convolution)
    reference.forward(exact[0], exact[1], biases[1], y_exact)
    y_exact.data[...] += exact[3].data * spec.adds
    let_through = np.ones(y_diff.shape, bool)
    if spec.relu:
        let_through = y.data > 0
        y_exact.data[...] = np.maximum(y_exact.data, 0)
    bench.place(y, y.data.copy(), y_diff)
    wanted = Wanted(bias=convolution.bias)
    operation.backward(x, weight, biases[0], added if spec.adds else None, y, wanted, spec.adds)
    y_exact.diff[...] = y_diff * let_through
    if spec.adds:
        exact[3].diff[...] = y_exact.diff
    reference.backward(exact[0], exact[1], biases[1], y_exact, wanted)
    return [*mine, y], [*exact, y_exact]


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", ["plain", "depthwise", "three axes", "one axis"])
def test_fused_convolution_is_one_after_the_other(bench: Bench, name: str, adds: bool, relu: bool) -> None:
    mine, exact = run_both(bench, FusedWeightedSpec(SPECS[name], adds, relu))
    bench.expect(mine[4].data, exact[4].data)
    for actual, expected in zip(mine[:4], exact[:4], strict=True):
        bench.expect(actual.diff, expected.diff, 2)


def test_fused_convolution_that_cudnn_refuses_is_one_after_the_other(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(refused=("FindConvolutionForwardAlgorithmEx",))
    mine, exact = run_both(bench, FusedWeightedSpec(PLAIN, True, True))
    bench.expect(mine[4].data, exact[4].data, 4)
    for actual, expected in zip(mine[:4], exact[:4], strict=True):
        bench.expect(actual.diff, expected.diff, 8)


def test_fused_relu_lets_nan_through(bench: Bench) -> None:
    spec = FusedWeightedSpec(replace(PLAIN, bias=False), False, True)
    x, weight = (bench.pair(np.full(shape, np.nan))[0] for shape in (PLAIN.x_shape, PLAIN.weight_shape))
    y = Blob(PLAIN.y_shape)
    bench.engine.create_own(spec).forward(x, weight, None, None, y)
    assert np.isnan(y.data).all()


def test_fused_inner_product_is_one_after_the_other(bench: Bench) -> None:
    spec = InnerProductSpec(5, 6, 7)
    values = [bench.normal(*shape) for shape in ((5, 6), (7, 6), (7,), (5, 7))]
    x, weight, bias = (bench.pair(one, last=False)[0] for one in values[:3])
    y = bench.pair(np.zeros((5, 7)), values[3])[0]
    operation = bench.engine.create_own(FusedWeightedSpec(spec, False, True))
    operation.forward(x, weight, bias, None, y)
    total = values[0] @ values[1].T + values[2]
    bench.expect(y.data, np.maximum(total, 0))
    operation.backward(x, weight, bias, None, y, Wanted(), False)
    diff = values[3] * (total > 0)
    bench.expect(x.diff, diff @ values[1])
    bench.expect(weight.diff, diff.T @ values[0])
    bench.expect(bias.diff, diff.sum(axis=0))


def test_fused_inner_product_with_a_blob_added_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    with pytest.raises(NotOffered, match="with a blob added"):
        make_bench().engine.create_own(FusedWeightedSpec(InnerProductSpec(2, 3, 4), True, True))
