from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.engines.operations import InnerProductSpec, Wanted

Array = NDArray[np.float64]


def multiply(x: Array, weight: Array, bias: Array) -> Array:
    """Return x·Wᵀ + b, number by number."""
    rows = x.reshape(len(x), weight.shape[1])
    return np.array(
        [
            [sum(a * b for a, b in zip(row, w, strict=True)) + c for w, c in zip(weight, bias, strict=True)]
            for row in rows
        ]
    ).reshape(len(x), len(bias))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("x_shape", [(1, 1), (3, 5), (4, 2, 3, 2), (0, 5)])
def test_inner_product_forward_and_backward_follow_the_formula(
    rig: Any, x_shape: tuple[int, ...], transposed: bool
) -> None:
    x, weight, bias = rig.normal(*x_shape), rig.normal(3, int(np.prod(x_shape[1:]))), rig.normal(3)
    y_diff, before = rig.normal(len(x), 3), rig.normal(*weight.shape)
    orient = np.transpose if transposed else np.asarray
    spec = InnerProductSpec(len(x), weight.shape[1], 3, transposed=transposed)
    operation = rig.engine.create(spec)
    x_blob, y_blob = rig.blob(x), rig.void(y_diff.shape, y_diff)
    weight_blob, bias_blob = rig.blob(orient(weight), orient(before)), rig.blob(bias, 0.5)

    operation.forward(x_blob, weight_blob, bias_blob, y_blob)
    rig.expect(y_blob.data, multiply(x, weight, bias))

    operation.backward(x_blob, weight_blob, bias_blob, y_blob, Wanted())
    weight_diff = orient(weight_blob.diff) - before
    rig.expect_gradient(lambda x: multiply(x, weight, bias), x, y_diff, x_blob.diff)
    rig.expect_gradient(lambda weight: multiply(x, weight, bias), weight, y_diff, weight_diff)
    rig.expect_gradient(lambda bias: multiply(x, weight, bias), bias, y_diff, bias_blob.diff - 0.5)


@pytest.mark.parametrize("only", ["x", "weight", "bias"])
def test_inner_product_backward_leaves_what_is_not_wanted(rig: Any, only: str) -> None:
    blobs = {
        "x": rig.blob(rig.normal(2, 4)),
        "weight": rig.blob(rig.normal(3, 4)),
        "bias": rig.blob(rig.normal(3)),
    }
    y = rig.void((2, 3), 1.0)
    blobs[only].diff[...] = 0
    wanted = Wanted(**{name: name == only for name in blobs})
    rig.engine.create(InnerProductSpec(2, 4, 3)).backward(*blobs.values(), y, wanted)
    assert {name for name, blob in blobs.items() if not np.isnan(blob.diff).any()} == {only}


def test_inner_product_without_bias_is_the_product_alone(rig: Any) -> None:
    x, weight = rig.normal(2, 4), rig.normal(3, 4)
    operation = rig.engine.create(InnerProductSpec(2, 4, 3, bias=False))
    x_blob, weight_blob, y_blob = rig.blob(x), rig.blob(weight, 0.0), rig.void((2, 3), 1.0)
    operation.forward(x_blob, weight_blob, None, y_blob)
    operation.backward(x_blob, weight_blob, None, y_blob, Wanted())
    rig.expect(y_blob.data, multiply(x, weight, np.zeros(3)))
    rig.expect(weight_blob.diff, np.tile(x.sum(axis=0), (3, 1)))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 5, 3), (4, 1, 3), (4, 5, 1), (3, 40, 20), (0, 5, 3)])
def test_inner_product_backward_overwrites_a_cleared_diff_and_then_adds(
    rig: Any, sizes: tuple[int, int, int], transposed: bool
) -> None:
    rows, inputs, outputs = sizes
    x, weight, y_diff = rig.normal(rows, inputs), rig.normal(outputs, inputs), rig.normal(rows, outputs)
    operation = rig.engine.create(InnerProductSpec(rows, inputs, outputs, transposed=transposed))
    orient = np.transpose if transposed else np.asarray
    weight_blob, bias_blob = rig.cleared(orient(weight)), rig.cleared(np.zeros(outputs))
    for times in (1, 2):
        operation.backward(rig.blob(x), weight_blob, bias_blob, rig.void(y_diff.shape, y_diff), Wanted())
        rig.expect(weight_blob.read_diff(), times * orient(y_diff.T @ x))
        rig.expect(bias_blob.read_diff(), times * y_diff.sum(axis=0))
