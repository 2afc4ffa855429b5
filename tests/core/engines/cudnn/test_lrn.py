"""In float32 ../reference/test_lrn.py tests the same; here it is about 16 bits and what cuDNN has not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dtrain.core.engines.cudnn.lrn import LRN
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import LRNSpec
from tests.core.engines.cudnn.conftest import Bench

SHAPE = (2, 9, 3, 4)


@pytest.mark.parametrize(
    "spec", [LRNSpec(SHAPE, 5, 1.0, 0.75, 1.0, False), LRNSpec(SHAPE, 3, 2.0, 0.5, 2.0, False)]
)
def test_lrn_in_each_precision_is_the_references(bench: Bench, spec: LRNSpec) -> None:
    x, x_exact = bench.pair(bench.normal(*SHAPE))
    y, y_exact = bench.pair(bench.normal(*SHAPE), bench.normal(*SHAPE))
    for operation, bottom, top in (
        (LRN(spec, bench.engine), x, y),
        (bench.reference.create(spec), x_exact, y_exact),
    ):
        operation.forward(bottom, top)
    bench.expect(y.data, y_exact.data)
    y.data[...] = 99  # a layer behind may work in place
    operation = LRN(spec, bench.engine)
    operation.backward(x, y)
    bench.reference.create(spec)
    exact = bench.reference.create(spec)
    exact.forward(x_exact, y_exact)
    exact.backward(x_exact, y_exact)
    bench.expect(x.diff, x_exact.diff)


def test_lrn_without_code_in_16_bits_works_in_plain_memory(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16", refused_in_halves=("LRNCrossChannelForward",))
    bench.tolerance = 1e-5
    spec = LRNSpec(SHAPE, 5, 1.0, 0.75, 1.0, False)
    x, x_exact = bench.pair(bench.normal(*SHAPE))
    y, y_exact = bench.pair(bench.normal(*SHAPE))
    LRN(spec, bench.engine).forward(x, y)
    bench.reference.create(spec).forward(x_exact, y_exact)
    bench.expect(y.data, y_exact.data)


def test_lrn_that_cudnn_refuses_is_the_fallbacks(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(refused=("LRNCrossChannelForward",))
    spec = LRNSpec(SHAPE, 5, 1.0, 0.75, 1.0, False)
    x, x_exact = bench.pair(bench.normal(*SHAPE))
    y, y_exact = bench.pair(bench.normal(*SHAPE), bench.normal(*SHAPE))
    for operation, bottom, top in (
        (LRN(spec, bench.engine), x, y),
        (bench.reference.create(spec), x_exact, y_exact),
    ):
        operation.forward(bottom, top)
        operation.backward(bottom, top)
    bench.expect(y.data, y_exact.data, 4)
    bench.expect(x.diff, x_exact.diff, 4)


@pytest.mark.parametrize(
    ("spec", "limits"),
    [
        (LRNSpec(SHAPE, 3, 1.0, 0.75, 1.0, True), "within channels"),
        (LRNSpec(SHAPE, 17, 1.0, 0.75, 1.0, False), "of 17 neighbours"),
        (LRNSpec(SHAPE, 5, 1.0, 0.75, 0.0, False), "with k 0 and beta"),
        (LRNSpec(SHAPE, 5, 1.0, 0.001, 1.0, False), "beta 0.001"),
    ],
)
def test_lrn_beyond_cudnns_limits_is_not_offered(
    make_bench: Callable[..., Bench], spec: LRNSpec, limits: str
) -> None:
    with pytest.raises(NotOffered, match=limits):
        LRN(spec, make_bench().engine)
