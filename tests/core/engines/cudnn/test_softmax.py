"""In float32 ../reference/test_softmax.py tests the same; here it is about where values lie."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.cudnn.softmax import Softmax
from dtrain.core.engines.operations import SoftmaxSpec
from tests.core.engines.cudnn.conftest import Bench


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_softmax_in_each_precision_is_computed_in_float32(bench: Bench, axis: int) -> None:
    bench.tolerance = 1e-6
    spec = SoftmaxSpec((2, 3, 4, 2), axis)
    x, x_exact = bench.pair(3 * bench.normal(*spec.x_shape))
    y, y_exact = bench.pair(np.zeros(spec.x_shape), bench.normal(*spec.x_shape))
    exact = bench.reference.create(spec)
    exact.forward(x_exact, y_exact)
    exact.backward(x_exact, y_exact)
    operation = Softmax(spec, bench.engine)
    rounded = 2.0**-7 * (bench.engine.precision != "FLOAT32")  # what was rounded before
    operation.forward(x, y)
    np.testing.assert_allclose(y.data, y_exact.data, rtol=0, atol=1e-6 + 3 * rounded)
    np.testing.assert_allclose(y.data.sum(axis=axis), 1, rtol=1e-6)
    operation.backward(x, y)
    np.testing.assert_allclose(x.diff, x_exact.diff, rtol=0, atol=1e-6 + 8 * rounded)
    assert not bench.is_last(y.data_tensor, y.shape)
