"""In float32 ../reference/test_activation.py tests the same; here it is about 16 bits and about shapes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines.cudnn.activation import Activation
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ActivationSpec
from tests.core.engines.cudnn.conftest import Bench
from tests.played.cudnn_descriptors import Refused


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
        assert bench.engine.has_half_activations


def test_relu_lets_nan_through(bench: Bench) -> None:
    x, _ = bench.pair(np.full((1, 2, 2, 2), np.nan))
    Activation(ActivationSpec(x.shape, "relu"), bench.engine).forward(x, x)
    assert np.isnan(x.data).all()


def test_relu_with_a_slope_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    with pytest.raises(NotOffered, match="with a negative slope"):
        Activation(ActivationSpec((2, 3), "relu", 0.1), make_bench().engine)


def test_activation_in_16_bits_is_tried_once_before(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    x = bench.pair(bench.normal(2, 3, 4, 4))[0]
    for _ in range(3):
        operation = Activation(ActivationSpec(x.shape, "relu"), bench.engine)
        assert operation.for_data(x) is bench.engine.memories.best(x.shape)
    assert bench.played.calls["ActivationForward"] == 3  # a relu, a sigmoid and a tanh of few values


def test_activation_without_code_in_16_bits_works_in_plain_memory(
    make_bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench("FLOAT16", refused_in_halves=("ActivationForward",))
    x = bench.pair(bench.normal(2, 3, 4, 4))[0]
    operation = Activation(ActivationSpec(x.shape, "relu"), bench.engine)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert operation.for_data(x) is bench.engine.memories.plain
    assert caplog.messages == ["engine cudnn has no Activation in FLOAT16; that is computed in float32"]


def test_activation_that_cudnn_takes_for_a_mistake_in_16_bits_works_in_plain_memory(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench("BF16", refused=("ActivationForward",))
    bench.played.refusal = Mistaken
    x = bench.pair(bench.normal(2, 3, 4, 4))[0]
    operation = Activation(ActivationSpec(x.shape, "relu"), bench.engine)
    assert operation.for_data(x) is bench.engine.memories.plain


class Mistaken(Refused):
    status = 2003
