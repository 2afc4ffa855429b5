from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn.pooling import Pooling
from dtrain.core.engines.operations import PoolingSpec
from tests.core.engines.onednn.conftest import BF16_ROUNDOFF

# x_shape, output, kernel, stride, pad
WINDOWS = {
    "tiled": ((2, 20, 4, 6), (2, 3), (2, 2), (2, 2), (0, 0)),
    "last window clipped, no padding": ((2, 32, 8, 8), (4, 4), (3, 3), (2, 2), (0, 0)),
    "padded": ((1, 20, 5, 5), (5, 5), (3, 3), (1, 1), (1, 1)),
    "padded, last window clipped": ((2, 20, 4, 4), (3, 3), (3, 3), (2, 2), (1, 1)),
    "padded along one axis, clipped along the other": ((1, 16, 5, 6), (3, 4), (2, 3), (2, 2), (0, 1)),
    "whole plane": ((2, 20, 7, 6), (1, 1), (7, 6), (1, 1), (0, 0)),
}


def make_spec(name: str, method: str) -> PoolingSpec:
    x_shape, output, kernel, stride, pad = WINDOWS[name]
    return PoolingSpec(x_shape, (*x_shape[:2], *output), method, kernel, stride, pad)


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("name", WINDOWS)
def test_pooling_in_each_layout_gives_what_the_reference_gives(
    bench: Any, name: str, method: str, layout: str
) -> None:
    spec = make_spec(name, method)
    assert isinstance(bench.engine.create(spec), Pooling)
    bench.check_unary(spec, layout, lambda op, x, y: op.forward(x, y, None), y_shape=spec.y_shape)


@pytest.mark.parametrize("layout", ["plain", "blocked"])
def test_max_pooling_with_a_mask_is_the_references(bench: Any, layout: str) -> None:
    spec = make_spec("padded", "MAX")
    x, y, mask = bench.normal(*spec.x_shape), Blob(spec.y_shape), Blob(spec.y_shape)
    exact, exact_y, exact_mask = bench.exact(x), *(Blob(spec.y_shape, np.float64) for _ in range(2))
    operation, reference = bench.engine.create(spec), bench.reference.create(spec)
    x_blob = bench.blob(x, layout)
    operation.forward(x_blob, y, mask)
    reference.forward(exact, exact_y, exact_mask)
    np.testing.assert_array_equal(mask.data, exact_mask.data)
    y.diff[...] = exact_y.diff[...] = bench.normal(*spec.y_shape)
    operation.backward(x_blob, y)
    reference.backward(exact, exact_y)
    bench.expect(x_blob.diff, exact.diff)


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
def test_max_pooling_of_equal_values_takes_the_first(bench: Any, layout: str) -> None:
    spec = PoolingSpec((1, 3, 2, 2), (1, 3, 1, 1), "MAX", (2, 2), (1, 1), (0, 0))
    x, y = bench.blob(np.ones(spec.x_shape), layout), Blob(spec.y_shape)
    operation = bench.engine.create(spec)
    operation.forward(x, y, None)
    y.diff[...] = 5
    operation.backward(x, y)
    assert x.diff.tolist() == [[[[5, 0], [0, 0]]] * 3]


def test_pooling_with_windows_beyond_the_input_is_not_offered(bench: Any) -> None:
    with pytest.raises(NotOffered, match="windows that see no input"):
        Pooling(PoolingSpec((1, 1, 4, 4), (1, 1, 3, 3), "MAX", (1, 1), (2, 2), (0, 0)), bench.engine)


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
def test_pooling_leaves_y_in_the_layout_of_x(bench: Any, layout: str) -> None:
    spec = make_spec("padded", "MAX")
    memories = bench.check_unary(spec, layout, lambda op, x, y: op.forward(x, y, None), y_shape=spec.y_shape)
    assert memories == {bench.memory(layout, spec.y_shape)}


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("name", WINDOWS)
def test_pooling_of_bf16_gives_what_the_reference_gives(
    bf16_bench: Any, name: str, method: str, layout: str
) -> None:
    """An average, and each of the overlapping windows that add to a diff, may be rounded twice: by a factor too."""
    spec = make_spec(name, method)
    bf16_bench.tolerance = 2 * BF16_ROUNDOFF
    bf16_bench.check_unary(spec, layout, lambda op, x, y: op.forward(x, y, None), y_shape=spec.y_shape)


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
def test_max_pooling_of_bf16_shows_a_window_of_nan_alone(bf16_bench: Any, layout: str) -> None:
    x = bf16_bench.normal(2, 20, 4, 4)
    x[0, 3, :2, :2] = np.nan
    x[1, 0, 2:, 2:] = -0.0
    expected = x.reshape(2, 20, 2, 2, 2, 2).max(axis=(3, 5))
    y = Blob(expected.shape)
    spec = PoolingSpec(x.shape, y.shape, "MAX", (2, 2), (2, 2), (0, 0))
    bf16_bench.engine.create(spec).forward(bf16_bench.blob(x, layout), y, None)
    assert y.data_tensor.storage.valid == {bf16_bench.memory(layout, y.shape)}
    assert np.isnan(y.data[0, 3, 0, 0])
    assert np.isnan(y.data).sum() == 1
    np.testing.assert_array_equal(y.data, expected)
