"""In float32 ../reference/test_inner_product.py tests the same; here it is about 16 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines.cudnn.inner_product import InnerProduct
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import InnerProductSpec, Wanted
from tests.core.engines.cudnn.conftest import Bench


@pytest.mark.parametrize("transposed", [False, True])
def test_inner_product_in_each_precision_follows_the_formula(bench: Bench, transposed: bool) -> None:
    spec = InnerProductSpec(3, 8, 5, transposed=transposed)
    x, weight, bias, y_diff = (
        bench.normal(3, 2, 2, 2),
        bench.normal(5, 8),
        bench.normal(5),
        bench.normal(3, 5),
    )
    bottom, numbers = bench.pair(x)[0], bench.pair(bias, 0.5, last=False)[0]
    matrix = bench.pair(weight.T if transposed else weight, 0.5, last=False)[0]
    top = bench.pair(np.zeros((3, 5)), y_diff)[0]
    operation = InnerProduct(spec, bench.engine)
    operation.forward(bottom, matrix, numbers, top)
    operation.backward(bottom, matrix, numbers, top, Wanted())
    rows = x.reshape(3, 8)
    bench.expect(top.data, rows @ weight.T + bias)
    bench.expect(bottom.diff, (y_diff @ weight).reshape(x.shape))
    expected = y_diff.T @ rows + 0.5
    np.testing.assert_allclose(matrix.diff, expected.T if transposed else expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numbers.diff, y_diff.sum(axis=0) + 0.5, rtol=1e-5, atol=1e-5)
    assert not bench.is_last(top.data_tensor, (3, 5))


def test_inner_product_of_nothing_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    with pytest.raises(NotOffered, match="of 3 rows, 0 inputs and 5 outputs"):
        InnerProduct(InnerProductSpec(3, 0, 5), make_bench().engine)
