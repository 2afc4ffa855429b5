"""Dropout: in training each value is set to 0 with probability dropout_ratio, the others are scaled up."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import DropoutSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, InPlace, Layer
from dtrain.proto import caffe_pb2


@LAYERS.register("Dropout")
class Dropout(Layer):
    """Bottom and top: any shape. TRAIN: y = x·mask / (1 − dropout_ratio); TEST: y = x.

    With scale_train: false, TRAIN: y = x·mask; TEST: y = x·(1 − dropout_ratio). The mask is a function of (seed,
    layer, pass, rank). Follows caffe's dropout_layer.cpp; scale_train is py-faster-rcnn's.
    """

    in_place = InPlace.YES
    backward_reads_bottoms = False
    backward_reads_tops = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError unless 0 ≤ dropout_ratio < 1."""
        param = self.param.dropout_param
        self.ratio = param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise UserError(f"dropout_param.dropout_ratio must be at least 0 and below 1, got {self.ratio:g}")
        kept = 1 - self.ratio
        self.train_factor, self.test_factor = (1 / kept, 1.0) if param.scale_train else (1.0, kept)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].shape)
        if self.phase == caffe_pb2.TRAIN:
            self.operation = self.engine.create(DropoutSpec(bottom[0].shape, self.ratio, self.train_factor))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Drop (TRAIN), or copy or scale (TEST)."""
        if self.phase == caffe_pb2.TRAIN:
            self.operation.forward(bottom[0], top[0], self.context.random.for_pass(self.name))
        elif self.test_factor != 1:
            x = bottom[0].read_data(self.memory)
            self.xp.multiply(x, self.test_factor, out=top[0].write_data(self.memory))
        elif top[0] is not bottom[0]:
            top[0].write_data(self.memory)[...] = bottom[0].read_data(self.memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Send the gradient through what was kept (TRAIN) or through all (TEST)."""
        if not propagate_down[0]:
            return
        if self.phase == caffe_pb2.TRAIN:
            self.operation.backward(bottom[0], top[0])
        elif self.test_factor != 1:
            dy = top[0].read_diff(self.memory)
            self.xp.multiply(dy, self.test_factor, out=bottom[0].write_diff(self.memory))
        elif top[0] is not bottom[0]:
            bottom[0].write_diff(self.memory)[...] = top[0].read_diff(self.memory)
