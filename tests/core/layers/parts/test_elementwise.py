"""Functions of single values: what the gradient is taken from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.layers.layer import LayerContext
from dtrain.core.layers.parts.elementwise import ElementwiseLayer
from dtrain.core.random_streams import RandomStreams
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2


class Cube(ElementwiseLayer):
    """x³."""

    def value(self, x: Any, y: Any) -> None:
        """Compute x·x·x."""
        assert not np.shares_memory(x, y)
        self.xp.multiply(x, x, out=y)
        y *= x

    def slope(self, x: Any) -> Any:
        """Return 3·x²."""
        return 3 * x * x


def make_cube() -> Cube:
    context = LayerContext(caffe_pb2.TRAIN, create_engine("reference"), RandomStreams(1), Shard(0, 1))
    return Cube(caffe_pb2.LayerParameter(name="cube"), context)


@pytest.mark.parametrize("in_place", [False, True])
def test_elementwise_layer_gradient_is_right_whatever_was_written_over_the_top(in_place: bool) -> None:
    layer, bottom = make_cube(), Blob((2, 2))
    top = bottom if in_place else Blob()
    for values in ([[1, -2], [3, 0]], [[-1, 2], [0.5, 4]], [[2, 5]]):
        bottom.reshape(len(values), 2)
        layer.reshape([bottom], [top])
        bottom.data[...] = values
        layer.forward([bottom], [top])
        np.testing.assert_array_equal(top.data, np.array(values) ** 3)
        top.data[...] = np.nan  # as a layer that works in place behind this one may
        top.diff[...] = 0.5
        layer.backward([top], [True], [bottom])
        np.testing.assert_array_equal(bottom.diff, 1.5 * np.array(values) ** 2)


def test_elementwise_layer_leaves_a_diff_alone_that_nobody_wants() -> None:
    layer, bottom, top = make_cube(), Blob((2,)), Blob()
    layer.reshape([bottom], [top])
    layer.forward([bottom], [top])
    bottom.diff[...] = 7
    layer.backward([top], [False], [bottom])
    np.testing.assert_array_equal(bottom.diff, [7, 7])
