"""In float32 ../reference/test_lrn.py tests the same; here it is about 16 bits and what cuDNN has not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dtrain.core.engines.cudnn.lrn import LRN
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import LRNSpec
from tests.core.engines.cudnn.conftest import Bench

SHAPE = (2, 9, 3, 4)


@pytest.mark.parametrize("shape", [SHAPE, (2, 16, 2, 3), (1, 2, 2, 2), (3, 8, 1, 1)])
@pytest.mark.parametrize(
    "numbers", [(5, 1.0, 0.75, 1.0), (3, 2.0, 0.5, 2.0), (1, 1.0, 0.75, 1.0), (9, 1.0, 1.0, 1.0)]
)
def test_lrn_in_each_precision_is_the_references(
    bench: Bench, numbers: tuple[int, float, float, float], shape: tuple[int, ...]
) -> None:
    spec = LRNSpec(shape, *numbers, False)
    x, x_exact = bench.pair(bench.normal(*shape))
    y, y_exact = bench.pair(bench.normal(*shape), bench.normal(*shape))
    for operation, bottom, top in (
        (LRN(spec, bench.engine), x, y),
        (bench.reference.create(spec), x_exact, y_exact),
    ):
        operation.forward(bottom, top)
    bench.expect(y.data, y_exact.data)
    y.data[...] = 99  # a layer behind may work in place
    operation = LRN(spec, bench.engine)
    operation.backward(x, y)
    exact = bench.reference.create(spec)
    exact.forward(x_exact, y_exact)
    exact.backward(x_exact, y_exact)
    bench.expect(x.diff, x_exact.diff)


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
