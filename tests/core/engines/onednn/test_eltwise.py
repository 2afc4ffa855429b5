from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn.eltwise import create_eltwise
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.engines.operations import EltwiseSpec

SHAPE = (2, 20, 3, 4)


@pytest.mark.parametrize(
    "layouts",
    [("plain",) * 3, ("blocked",) * 3, ("plain", "blocked", "channels last")],
    ids=["plain", "blocked", "mixed"],
)
@pytest.mark.parametrize(
    ("operation", "coeffs"),
    [("SUM", (1.0, 1.0, 1.0)), ("SUM", (2.0, -0.5, 0.0)), ("PROD", (1.0,) * 3), ("MAX", (1.0,) * 3)],
)
def test_eltwise_of_any_layouts_gives_what_the_reference_gives(
    bench: Any, operation: str, coeffs: tuple[float, ...], layouts: tuple[str, ...]
) -> None:
    spec = EltwiseSpec(SHAPE, operation, coeffs)
    xs, y_diff = [bench.normal(*SHAPE) for _ in layouts], bench.normal(*SHAPE)
    results = []
    for engine in (bench.reference, bench.engine):
        is_exact = engine is bench.reference
        blobs = [
            bench.exact(x) if is_exact else bench.blob(x, layout)
            for x, layout in zip(xs, layouts, strict=True)
        ]
        y = Blob(SHAPE, blobs[0].dtype)
        carried_out = engine.create(spec)
        carried_out.forward(blobs, y)
        lies_in_layout = any(isinstance(memory, Layout) for memory in y.data_tensor.storage.valid)
        assert lies_in_layout == (not is_exact and "blocked" in layouts)
        values = y.read_data().copy()
        y.diff[...] = y_diff
        carried_out.backward(blobs, y, [True, False, True])
        assert np.isnan(blobs[1].diff).all()
        results.append((values, blobs[0].diff, blobs[2].diff))
    for expected, actual in zip(*results, strict=True):
        bench.expect(actual, expected)


def test_eltwise_product_with_a_quotient_as_gradient_is_not_offered(bench: Any) -> None:
    with pytest.raises(NotOffered, match="quotient"):
        create_eltwise(EltwiseSpec(SHAPE, "PROD", (1.0, 1.0), stable_prod_grad=False), bench.engine)


@pytest.mark.parametrize(
    "layouts", [("blocked",) * 3, ("plain", "blocked", "channels last")], ids=["one", "mixed"]
)
@pytest.mark.parametrize(
    ("operation", "coeffs"),
    [("SUM", (1.0, 1.0, 1.0)), ("SUM", (2.0, -0.5, 0.0)), ("PROD", (1.0,) * 3), ("MAX", (1.0,) * 3)],
)
def test_eltwise_of_bf16_gives_what_the_reference_gives(
    bf16_bench: Any, operation: str, coeffs: tuple[float, ...], layouts: tuple[str, ...]
) -> None:
    """A sum is bf16, rounded once; products and maxima are float32's, on the host."""
    spec = EltwiseSpec(SHAPE, operation, coeffs)
    xs, y_diff = [bf16_bench.normal(*SHAPE) for _ in layouts], bf16_bench.normal(*SHAPE)
    exact_blobs, exact_y = [bf16_bench.exact(x) for x in xs], Blob(SHAPE, np.float64)
    blobs = [bf16_bench.blob(x, layout) for x, layout in zip(xs, layouts, strict=True)]
    y, results = Blob(SHAPE), []
    for engine, bottoms, top in (
        (bf16_bench.reference, exact_blobs, exact_y),
        (bf16_bench.engine, blobs, y),
    ):
        carried_out = engine.create(spec)
        carried_out.forward(bottoms, top)
        is_in_layout = any(isinstance(memory, Layout) for memory in top.data_tensor.storage.valid)
        assert is_in_layout == (top is y and operation == "SUM")
        values = top.read_data().copy()
        top.diff[...] = y_diff
        carried_out.backward(bottoms, top, [True, False, True])
        results.append((values, bottoms[0].diff, bottoms[2].diff))
    for expected, actual in zip(*results, strict=True):
        bf16_bench.expect(actual, expected, None if operation == "SUM" else 1e-5)
