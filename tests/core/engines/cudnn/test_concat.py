"""In float32 ../reference/test_concat.py tests the same; here it is about 16 bits with channels last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines.cudnn.concat import Concat
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ConcatSpec
from tests.core.engines.cudnn.conftest import Bench


@pytest.mark.parametrize("shapes", [((2, 3, 2, 2), (2, 1, 2, 2), (2, 4, 2, 2)), ((3, 2), (3, 5))])
def test_concat_in_each_precision_is_the_blobs_in_order(
    bench: Bench, shapes: tuple[tuple[int, ...], ...]
) -> None:
    values = [bench.normal(*shape) for shape in shapes]
    whole = np.concatenate(values, axis=1)
    y_diff = bench.normal(*whole.shape)
    xs = [bench.pair(one, last=k > 0)[0] for k, one in enumerate(values)]
    y = bench.pair(np.zeros(whole.shape), y_diff)[0]
    operation = Concat(ConcatSpec(shapes, 1), bench.engine)
    operation.forward(xs, y)
    if len(shapes) == 3:
        assert bench.is_last(y.data_tensor, y.shape) == (bench.engine.precision != "FLOAT32")
    np.testing.assert_array_equal(y.data, whole)  # the values have few bits
    operation.backward(xs, y, [True, False, True][: len(xs)])
    np.testing.assert_array_equal(xs[0].diff, y_diff[:, : shapes[0][1]])
    assert not xs[1].diff.any()
    if len(xs) == 3:
        np.testing.assert_array_equal(xs[2].diff, y_diff[:, -shapes[2][1] :])


@pytest.mark.parametrize("spec", [ConcatSpec(((2, 3), (2, 3)), 0), ConcatSpec(((0, 3), (0, 4)), 1)])
def test_concat_along_another_axis_is_not_offered(make_bench: Callable[..., Bench], spec: ConcatSpec) -> None:
    with pytest.raises(NotOffered):
        Concat(spec, make_bench().engine)
