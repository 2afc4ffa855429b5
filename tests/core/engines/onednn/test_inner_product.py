from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import InnerProductSpec, Wanted


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("wanted", [Wanted(), Wanted(x=False), Wanted(weight=False), Wanted(bias=False)])
def test_inner_product_takes_x_from_each_layout(
    bench: Any, layout: str, transposed: bool, wanted: Wanted
) -> None:
    x, weight, bias = bench.normal(3, 20, 2, 2), bench.normal(7, 80), bench.normal(7)
    y_diff = bench.normal(3, 7)
    held = weight.T if transposed else weight
    x_blob, weight_blob = bench.blob(x, layout), bench.blob(held, "plain", 0.5)
    bias_blob, y = bench.blob(bias, "plain", 0.5), Blob((3, 7))
    operation = bench.engine.create(InnerProductSpec(3, 80, 7, True, transposed))
    operation.forward(x_blob, weight_blob, bias_blob, y)
    rows = x.reshape(3, 80)
    bench.expect(y.data, rows @ weight.T + bias)
    y.diff[...] = y_diff
    operation.backward(x_blob, weight_blob, bias_blob, y, wanted)
    gradient = y_diff.T @ rows * wanted.weight
    bench.expect(weight_blob.diff, 0.5 + (gradient.T if transposed else gradient))
    bench.expect(bias_blob.diff, 0.5 + y_diff.sum(axis=0) * wanted.bias)
    if wanted.x:
        bench.expect(x_blob.diff, (y_diff @ weight).reshape(x.shape))
    else:
        assert np.isnan(x_blob.diff).all()


def test_inner_product_without_bias_leaves_none_out(bench: Any) -> None:
    x, weight, y = bench.normal(2, 3), bench.normal(4, 3), Blob((2, 4))
    operation = bench.engine.create(InnerProductSpec(2, 3, 4, bias=False))
    operation.forward(bench.blob(x, "plain"), bench.blob(weight, "plain"), None, y)
    bench.expect(y.data, x @ weight.T)
