from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn.inner_product import InnerProductInBF16
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


SIZES = {
    "usual": (8, 80, 7),
    "one row": (1, 20, 5),
    "one input": (3, 1, 4),
    "one output": (5, 6, 1),
    "one": (1, 1, 1),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_inner_product_in_bf16_rounds_operands_alone(
    bf16_bench: Any, caplog: pytest.LogCaptureFixture, sizes: tuple[int, int, int], transposed: bool
) -> None:
    """Operands are such as bf16 holds, so that all results are float32's."""
    rows, inputs, outputs = sizes
    x, weight, bias = (bf16_bench.normal(*shape) for shape in ((rows, inputs), (outputs, inputs), (outputs,)))
    y_diff = bf16_bench.normal(rows, outputs)
    x_blob, bias_blob = bf16_bench.blob(x, "plain"), bf16_bench.blob(bias, "plain", 0.5)
    weight_blob = bf16_bench.blob(weight.T if transposed else weight, "plain", 0.5)
    y = Blob((rows, outputs))
    with caplog.at_level(logging.INFO):
        operation = bf16_bench.engine.create(InnerProductSpec(rows, inputs, outputs, True, transposed))
    assert isinstance(operation, InnerProductInBF16)
    operation.forward(x_blob, weight_blob, bias_blob, y)
    bf16_bench.expect(y.data, x @ weight.T + bias, 1e-5)
    y.diff[...] = y_diff
    operation.backward(x_blob, weight_blob, bias_blob, y, Wanted())
    gradient = y_diff.T @ x
    bf16_bench.expect(weight_blob.diff, 0.5 + (gradient.T if transposed else gradient), 1e-5)
    bf16_bench.expect(bias_blob.diff, 0.5 + y_diff.sum(axis=0), 1e-5)
    bf16_bench.expect(x_blob.diff, y_diff @ weight, 1e-5)
    assert not caplog.messages


def test_inner_product_in_bf16_multiplies_rounded_values(bf16_bench: Any) -> None:
    """1 + 2⁻⁹ is 1 in bf16; a bias is not rounded."""
    x, weight, bias = (np.full(shape, 1 + 2.0**-9) for shape in ((2, 4), (3, 4), (3,)))
    y = Blob((2, 3))
    operation = bf16_bench.engine.create(InnerProductSpec(2, 4, 3))
    operation.forward(*(bf16_bench.blob(array, "plain") for array in (x, weight, bias)), y)
    assert np.all(y.data == 4 + 1 + 2.0**-9)


@pytest.mark.parametrize("wanted", [Wanted(x=False), Wanted(weight=False), Wanted(bias=False)])
def test_inner_product_in_bf16_computes_what_is_wanted_alone(bf16_bench: Any, wanted: Wanted) -> None:
    x, weight, bias = (
        bf16_bench.blob(bf16_bench.normal(*shape), "plain", 7) for shape in ((2, 3), (4, 3), (4,))
    )
    y = bf16_bench.blob(bf16_bench.normal(2, 4), "plain", bf16_bench.normal(2, 4))
    bf16_bench.engine.create(InnerProductSpec(2, 3, 4)).backward(x, weight, bias, y, wanted)
    is_untouched = [bool(np.all(blob.diff == 7)) for blob in (x, weight, bias)]
    assert is_untouched == [not wanted.x, not wanted.weight, not wanted.bias]


def test_inner_product_in_bf16_takes_x_from_a_convolutions_layout(bf16_bench: Any) -> None:
    x, weight, y = bf16_bench.normal(3, 20, 2, 2), bf16_bench.normal(7, 80), Blob((3, 7))
    x_blob = bf16_bench.blob(x, "blocked")
    operation = bf16_bench.engine.create(InnerProductSpec(3, 80, 7, bias=False))
    operation.forward(x_blob, bf16_bench.blob(weight, "plain"), None, y)
    bf16_bench.expect(y.data, x.reshape(3, 80) @ weight.T, 1e-5)


def test_inner_product_without_bias_leaves_none_out(bench: Any) -> None:
    x, weight, y = bench.normal(2, 3), bench.normal(4, 3), Blob((2, 4))
    operation = bench.engine.create(InnerProductSpec(2, 3, 4, bias=False))
    operation.forward(bench.blob(x, "plain"), bench.blob(weight, "plain"), None, y)
    bench.expect(y.data, x @ weight.T)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_inner_product_in_bf16_overwrites_a_cleared_diff_and_then_adds(
    bf16_bench: Any, sizes: tuple[int, int, int], transposed: bool
) -> None:
    rows, inputs, outputs = sizes
    x, y_diff = bf16_bench.normal(rows, inputs), bf16_bench.normal(rows, outputs)
    x_blob, y = bf16_bench.blob(x, "plain"), bf16_bench.blob(np.zeros(y_diff.shape), "plain", y_diff)
    gradient = x.T @ y_diff if transposed else y_diff.T @ x
    weight, bias = Blob(gradient.shape), Blob((outputs,))
    for blob in (weight, bias):
        blob.write_diff()[...] = np.nan
        blob.clear_diff()
    operation = bf16_bench.engine.create(InnerProductSpec(rows, inputs, outputs, True, transposed))
    for times in (1, 2):
        operation.backward(x_blob, weight, bias, y, Wanted())
        bf16_bench.expect(weight.read_diff(), times * gradient, 1e-5)
        bf16_bench.expect(bias.read_diff(), times * y_diff.sum(axis=0), 1e-5)
