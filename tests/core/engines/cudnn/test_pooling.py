"""In float32 ../reference/test_pooling.py tests the same; here it is about 16 bits with channels last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.pooling import Pooling
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import PoolingSpec
from tests.core.engines.cudnn.conftest import Bench

WINDOWS = {
    "plain": ((2, 3, 6, 5), (3, 2), (2, 2), (2, 2), (0, 0)),
    "in packs of channels": ((2, 16, 6, 7), (3, 3), (3, 3), (2, 2), (0, 0)),
    "in packs of channels, padded": ((2, 8, 5, 5), (5, 5), (3, 3), (1, 1), (1, 1)),
    "overlapping, hanging over": ((2, 9, 6, 7), (3, 3), (3, 3), (2, 2), (0, 0)),
    "padded, hanging over": ((1, 2, 6, 7), (4, 4), (3, 3), (2, 2), (1, 1)),
    "uneven": ((2, 2, 7, 5), (4, 6), (4, 2), (1, 1), (0, 1)),
    "the whole plane": ((2, 3, 5, 4), (1, 1), (5, 4), (1, 1), (0, 0)),
    "more than a byte's taps": ((1, 2, 17, 17), (1, 1), (17, 17), (1, 1), (0, 0)),
}


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("name", WINDOWS)
def test_pooling_in_each_precision_is_the_references(bench: Bench, name: str, method: str) -> None:
    x_shape, output, *window = WINDOWS[name]
    spec = PoolingSpec(x_shape, (*x_shape[:2], *output), method, *window)
    x, x_exact = bench.pair(bench.normal(*x_shape))
    y, y_exact = bench.pair(np.zeros(spec.y_shape), bench.normal(*spec.y_shape))
    for operation, bottom, top in (
        (bench.engine.create(spec), x, y),
        (bench.reference.create(spec), x_exact, y_exact),
    ):
        assert operation.forward(bottom, top, None) is None
        operation.backward(bottom, top)
    assert isinstance(bench.engine.create(spec), Pooling)
    is_half = bench.engine.precision != "FLOAT32"
    assert bench.is_last(y.data_tensor, y.shape) == bench.is_last(x.diff_tensor, x.shape) == is_half
    bench.expect(y.data, y_exact.data)
    bench.expect(x.diff, x_exact.diff)


def test_pooling_does_not_read_data_in_backward(bench: Bench) -> None:
    spec = PoolingSpec((1, 2, 4, 4), (1, 2, 2, 2), "MAX", (2, 2), (2, 2), (0, 0))
    values = np.arange(32.0).reshape(spec.x_shape)
    x, _ = bench.pair(values)
    y, _ = bench.pair(np.zeros(spec.y_shape), 1.0)
    operation = bench.engine.create(spec)
    operation.forward(x, y, None)
    for blob in (x, y):
        bench.place(blob, np.full(blob.shape, np.nan), 1.0)
    operation.backward(x, y)
    np.testing.assert_array_equal(x.diff, (values // 4 % 2 == 1) & (values % 2 == 1))


def test_pooling_with_places_works_in_plain_memory(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("BF16")
    spec = PoolingSpec((1, 2, 2, 4), (1, 2, 1, 2), "MAX", (2, 2), (2, 2), (0, 0))
    x, _ = bench.pair(np.array([0, 1, 9, 3, 7, 5, 6, 7, 8, 8, 0, 0, 8, 8, 0, 1.0]).reshape(spec.x_shape))
    y, mask = Blob(spec.y_shape), Blob(spec.y_shape)
    bench.engine.create(spec).forward(x, y, mask)
    np.testing.assert_array_equal(y.data.ravel(), [7, 9, 8, 1])
    np.testing.assert_array_equal(mask.data.ravel(), [4, 2, 0, 7])


def test_pooling_of_more_values_than_kernels_count_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    engine = make_bench().engine
    for count in (0, 2**23):
        spec = PoolingSpec((count, 1, 16, 16), (count, 1, 8, 8), "MAX", (2, 2), (2, 2), (0, 0))
        with pytest.raises(NotOffered, match=f"of {count * 256} values"):
            Pooling(spec, engine)
