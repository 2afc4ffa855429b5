"""In float32 ../reference/test_activation.py tests the same; here it is about 16 bits and about shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines.cudnn.activation import Activation
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ActivationSpec
from tests.core.engines.cudnn.conftest import Bench


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (7,), (2, 3), (1, 2, 3, 2, 2, 2)])
@pytest.mark.parametrize("function", ["relu", "sigmoid", "tanh"])
def test_activation_in_each_precision_is_the_references(
    bench: Bench, function: str, shape: tuple[int, ...], in_place: bool
) -> None:
    spec = ActivationSpec(shape, function)
    data, diff = bench.normal(*shape), bench.normal(*shape)
    last = len(shape) == 4
    (x, x_exact), (y, y_exact) = bench.pair(data, diff, last), bench.pair(data, diff, last)
    if in_place:
        y = x
    for operation, bottom, top in (
        (Activation(spec, bench.engine), x, y),
        (bench.reference.create(spec), x_exact, y_exact),
    ):
        operation.forward(bottom, top)
        operation.backward(bottom, top)
    bench.expect(y.data, y_exact.data)
    bench.expect(x.diff, x_exact.diff)
    if last and bench.engine.precision != "FLOAT32":
        assert bench.engine.works_in_half[Activation]


def test_relu_lets_nan_through(bench: Bench) -> None:
    x, _ = bench.pair(np.full((1, 2, 2, 2), np.nan))
    Activation(ActivationSpec(x.shape, "relu"), bench.engine).forward(x, x)
    assert np.isnan(x.data).all()


def test_relu_with_a_slope_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    with pytest.raises(NotOffered, match="with a negative slope"):
        Activation(ActivationSpec((2, 3), "relu", 0.1), make_bench().engine)
