from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import SoftmaxSpec


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("axis", [0, 1, 3])
def test_softmax_reads_each_layout(bench: Any, layout: str, axis: int) -> None:
    x, y = bench.normal(2, 20, 3, 5), Blob((2, 20, 3, 5))
    bench.engine.create(SoftmaxSpec(x.shape, axis)).forward(bench.blob(x, layout), y)
    bench.expect(y.data, np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True))


def test_softmax_of_large_scores_does_not_overflow(bench: Any) -> None:
    x, y = np.array([[1000.0, 1000.0, -1000.0]]), Blob((1, 3))
    bench.engine.create(SoftmaxSpec(x.shape, 1)).forward(bench.blob(x, "plain"), y)
    assert y.data.tolist() == [[0.5, 0.5, 0]]
