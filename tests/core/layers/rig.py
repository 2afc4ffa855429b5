"""A layer with its bottoms and tops, set up as a net does it: what the tests of layers drive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import ArrayLike, DTypeLike, NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.layers import LAYERS, Layer, LayerContext
from dtrain.core.random_streams import RandomStreams
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2

Array = NDArray[Any]
TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST


@dataclass
class Rig:
    """A layer with its bottoms and tops, set up."""

    layer: Layer
    bottom: list[Blob]
    top: list[Blob]

    def feed(self, inputs: Sequence[Array]) -> None:
        """Give the bottoms new values, and the layer new shapes if they changed."""
        shapes = [blob.shape for blob in self.bottom]
        for blob, values in zip(self.bottom, inputs, strict=True):
            blob.reshape(*values.shape)
            blob.data[...] = values
        if shapes != [blob.shape for blob in self.bottom]:
            self.layer.reshape(self.bottom, self.top)

    def forward(self) -> list[Array]:
        """Run forward and return copies of the tops' data."""
        self.layer.forward(self.bottom, self.top)
        return [blob.data.copy() for blob in self.top]

    def backward(self, top_diffs: Sequence[Array], propagate_down: Sequence[bool] | None = None) -> None:
        """Run backward from the given diffs, by default into every bottom that can have a gradient."""
        for blob, diff in zip(self.top, top_diffs, strict=True):
            blob.diff[...] = diff
        wanted = propagate_down or [i in self.differentiable for i in range(len(self.bottom))]
        self.layer.backward(self.top, wanted, self.bottom)

    @property
    def differentiable(self) -> list[int]:
        """The bottoms that can be given a gradient."""
        refused = self.layer.no_gradient_bottoms
        return [i for i in range(len(self.bottom)) if self.layer.has_backward and i not in refused]

    @property
    def with_diffs(self) -> list[Blob]:
        return [*(self.bottom[i] for i in self.differentiable), *self.layer.blobs]


def parse_layer(text: str) -> caffe_pb2.LayerParameter:
    """Return the message of a layer's prototxt."""
    return text_format.Parse(text, caffe_pb2.LayerParameter())


def make_layer(
    text: str,
    num_bottoms: int,
    num_tops: int = 1,
    phase: int = TRAIN,
    rank: int = 0,
    engine: str = "reference",
) -> Layer:
    """Return a layer with bottoms x0, x1 … and tops y0, y1 …, not set up."""
    param = parse_layer(text)
    param.name = "layer"
    param.bottom.extend(f"x{i}" for i in range(num_bottoms))
    param.top.extend(f"y{i}" for i in range(num_tops))
    random = RandomStreams(seed=1, rank=rank)
    return LAYERS[param.type](param, LayerContext(phase, create_engine(engine), random, Shard(0, 1)))


def make_rig(
    text: str,
    inputs: Sequence[ArrayLike],
    num_tops: int = 1,
    phase: int = TRAIN,
    in_place: bool = False,
    dtype: DTypeLike = np.float64,
    rank: int = 0,
    engine: str = "reference",
) -> Rig:
    """Return a layer, set up on bottoms of the given values; its params are of `dtype` too."""
    arrays = [np.asarray(values) for values in inputs]
    layer = make_layer(text, len(arrays), num_tops, phase, rank, engine)
    bottom = [Blob(values.shape, dtype) for values in arrays]
    top = [Blob((0,), dtype) for _ in range(num_tops)]
    if in_place:
        top[0] = bottom[0]
    for blob, values in zip(bottom, arrays, strict=True):
        blob.data[...] = values
    layer.setup(bottom, top)
    layer.blobs[:] = [_converted(blob, dtype) for blob in layer.blobs]
    layer.param_propagate_down = [True] * len(layer.blobs)
    layer.reshape(bottom, top)
    return Rig(layer, bottom, top)


def _converted(blob: Blob, dtype: DTypeLike) -> Blob:
    other = Blob(blob.shape, dtype)
    other.data[...] = blob.data
    return other
