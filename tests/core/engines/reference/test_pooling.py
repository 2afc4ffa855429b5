from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.engines.operations import PoolingSpec

Array = NDArray[np.float64]
Shape = tuple[int, ...]

# x_shape, output, kernel, stride, pad; the output is what Caffe's rounding rule gives
ROWS = {
    "tiled": ((2, 3, 4, 6), (2, 3), (2, 2), (2, 2), (0, 0)),
    "tiled with a rest cut off": ((2, 2, 5, 5), (2, 2), (2, 2), (2, 2), (0, 0)),
    "last window beyond the far end": ((2, 2, 5, 6), (3, 3), (3, 3), (2, 2), (0, 0)),
    "overlapping": ((1, 2, 5, 5), (3, 3), (3, 3), (1, 1), (0, 0)),
    "gaps between windows": ((1, 2, 7, 7), (2, 2), (2, 2), (4, 4), (0, 0)),
    "padded, overlapping": ((2, 1, 4, 5), (4, 5), (3, 3), (1, 1), (1, 1)),
    "padded, far window clipped": ((1, 1, 4, 4), (3, 3), (3, 3), (2, 2), (1, 1)),
    "padded, disjoint": ((1, 2, 5, 5), (3, 3), (2, 2), (2, 2), (1, 1)),
    "rectangular": ((2, 2, 6, 5), (3, 5), (2, 3), (2, 1), (0, 1)),
    "global": ((2, 3, 4, 5), (1, 1), (4, 5), (1, 1), (0, 0)),
    "global of more than 256 places": ((1, 2, 17, 16), (1, 1), (17, 16), (1, 1), (0, 0)),
    "single": ((1, 1, 1, 1), (1, 1), (1, 1), (1, 1), (0, 0)),
    "empty batch": ((0, 2, 4, 4), (2, 2), (2, 2), (2, 2), (0, 0)),
}


def make_spec(name: str, method: str) -> PoolingSpec:
    x_shape, output, kernel, stride, pad = ROWS[name]
    return PoolingSpec(x_shape, (*x_shape[:2], *output), method, kernel, stride, pad)


def pool(spec: PoolingSpec, x: Array) -> tuple[Array, Array]:
    """Return y and, for MAX, the argmax of each window, window by window and place by place."""
    y, places = np.zeros(spec.y_shape), np.zeros(spec.y_shape)
    height, width = spec.x_shape[2:]
    for n, c, p, q in np.ndindex(spec.y_shape):
        top, left = p * spec.stride[0] - spec.pad[0], q * spec.stride[1] - spec.pad[1]
        bottom = min(top + spec.kernel[0], height + spec.pad[0])
        right = min(left + spec.kernel[1], width + spec.pad[1])
        rows, columns = range(max(top, 0), min(bottom, height)), range(max(left, 0), min(right, width))
        if spec.method == "AVE":
            total = sum(x[n, c, h, w] for h in rows for w in columns)
            y[n, c, p, q] = total / ((bottom - top) * (right - left))
        else:
            best = max(x[n, c, h, w] for h in rows for w in columns)
            y[n, c, p, q] = best
            places[n, c, p, q] = next(h * width + w for h in rows for w in columns if x[n, c, h, w] == best)
    return y, places


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_pooling_forward_and_backward_follow_the_formula(rig: Any, name: str, method: str) -> None:
    spec = make_spec(name, method)
    x, y_diff = rig.normal(*spec.x_shape), rig.normal(*spec.y_shape)
    x_blob, y_blob = rig.blob(x), rig.void(spec.y_shape, y_diff)
    operation = rig.engine.create(spec)
    for _ in range(2):  # the second pass finds the buffers of the first
        operation.forward(x_blob, y_blob, None)
        operation.backward(x_blob, y_blob)
        rig.expect(y_blob.data, pool(spec, x)[0])
        rig.expect_gradient(lambda x: pool(spec, x)[0], x, y_diff, x_blob.diff)


@pytest.mark.parametrize("name", ROWS)
def test_max_pooling_of_ties_lets_the_first_win(rig: Any, name: str) -> None:
    spec = make_spec(name, "MAX")
    x = rig.random.integers(-2, 1, spec.x_shape).astype(np.float64)
    y_diff = rig.random.integers(1, 9, spec.y_shape).astype(np.float64)
    x_blob, y_blob, mask = rig.blob(x), rig.void(spec.y_shape, y_diff), rig.void(spec.y_shape)
    operation = rig.engine.create(spec)
    operation.forward(x_blob, y_blob, mask)
    operation.backward(x_blob, y_blob)
    y, places = pool(spec, x)
    expected = np.zeros((*spec.x_shape[:2], spec.x_shape[2] * spec.x_shape[3]))
    for n, c, p, q in np.ndindex(spec.y_shape):
        expected[n, c, int(places[n, c, p, q])] += y_diff[n, c, p, q]
    rig.expect(y_blob.data, y)
    rig.expect(mask.data, places)
    rig.expect(x_blob.diff, expected.reshape(spec.x_shape))


def test_pooling_of_a_window_without_inputs_gives_the_lowest_number_or_zero(rig: Any) -> None:
    """Rounding up with a stride beyond the kernel leaves such windows; Caffe divides by 0 for AVE."""
    x = rig.blob(np.arange(3.0).reshape(1, 1, 1, 3))
    for method, last, gradient in [("MAX", np.finfo(rig.dtype).min, [1, 0, 0]), ("AVE", 0, [1, 0, 0])]:
        spec = PoolingSpec((1, 1, 1, 3), (1, 1, 1, 2), method, (1, 1), (1, 3), (0, 0))
        y = rig.void(spec.y_shape, 1.0)
        mask = rig.void(spec.y_shape) if method == "MAX" else None
        operation = rig.engine.create(spec)
        operation.forward(x, y, mask)
        operation.backward(x, y)
        assert y.data.ravel().tolist() == [0, last]
        assert x.diff.ravel().tolist() == gradient
        assert mask is None or mask.data.ravel().tolist() == [0, -1]


def test_max_pooling_shows_a_nan(rig: Any) -> None:
    spec = PoolingSpec((1, 1, 1, 4), (1, 1, 1, 2), "MAX", (1, 2), (1, 2), (0, 0))
    y = rig.void(spec.y_shape)
    rig.engine.create(spec).forward(rig.blob(np.array([[[[rig.neighbour_of_nan, np.nan, 2, 3]]]])), y, None)
    assert np.isnan(y.data).ravel().tolist() == [True, False]
