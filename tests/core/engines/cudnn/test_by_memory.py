from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.activation import Activation
from dtrain.core.engines.operations import ActivationSpec
from tests.core.engines.cudnn.conftest import Bench


def test_tensor_of_each_memory_is_made_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    operation = Activation(ActivationSpec((2, 8, 4, 4), "relu"), bench.engine)
    plain, last = bench.engine.memories.plain, bench.engine.memories.best((2, 8, 4, 4))
    assert operation.tensor(plain) is operation.tensor(plain)
    assert operation.tensor(last) is operation.tensor(last)
    assert operation.tensor(last) is not operation.tensor(plain)


def test_unary_that_is_refused_when_it_runs_is_the_fallbacks_from_then_on(
    make_bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(refused=("ActivationForward",))
    x, y = bench.pair(np.array([[-1.0, 2.0]]))[0], Blob((1, 2))
    operation = bench.engine.create(ActivationSpec((1, 2), "tanh"))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            operation.forward(x, y)
            y.diff[...] = 1
            operation.backward(x, y)
    np.testing.assert_allclose(y.data, np.tanh([[-1, 2]]), rtol=1e-6)
    np.testing.assert_allclose(x.diff, 1 / np.cosh([[-1, 2]]) ** 2, rtol=1e-5)
    assert caplog.messages == [
        "engine cudnn has no Activation that cudnnActivationForward supports; engine cupy runs it"
    ]
    assert bench.played.calls["ActivationForward"] == 1
