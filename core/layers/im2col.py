"""Im2col: what each filter tap of a convolution sees, as channels; a Convolution without its weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.windows import Windows
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.core.layers.parts.spatial import convolution_window

log = logging.getLogger(__name__)

MEANINGLESS = ("num_output", "group", "weight_filler", "bias_filler")


@LAYERS.register("Im2col")
class Im2col(Layer):
    """Bottom: (outer…, C, H, …), C at `axis`. Top: (outer…, C·kernel…, P, …), P as Convolution's.

    Channel (c, r, s) of the top is, at (p, q), the bottom's pixel p·stride − pad + r·dilation, … of channel c,
    or 0 beyond the border. force_nd_im2col changes nothing. Follows caffe's im2col_layer.cpp.
    """

    messages = ("convolution_param",)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Warn of fields of a convolution that mean nothing here."""
        for name in MEANINGLESS:
            if self.param.convolution_param.HasField(name):
                log.warning(
                    'layer "%s": convolution_param.%s has no effect, Im2col has no weights', self.name, name
                )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError without spatial axes, or where the kernel does not fit."""
        param, shape = self.param.convolution_param, bottom[0].shape
        axis = self.canonical_axis(param.axis, len(shape), "convolution_param.axis")
        sizes, num_images = shape[axis + 1 :], math.prod(shape[:axis])
        if not sizes:
            raise UserError(
                f"{name_bottom(self, 0)} must have spatial axes behind channel axis {axis}, got shape {shape}"
            )
        window = convolution_window(param, len(sizes))
        output = window.output_sizes(sizes, "convolution_param")
        num_taps = math.prod(window.kernel)
        top[0].reshape(*shape[:axis], shape[axis] * num_taps, *output)
        self.images = (num_images, shape[axis], *sizes)
        self.columns = (num_images, shape[axis], num_taps, *output)
        y_shape = (num_images, shape[axis], *output)
        self.windows = Windows(
            self.xp, self.images, y_shape, window.kernel, window.stride, window.pad, window.dilation
        )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Copy what each tap sees."""
        images = bottom[0].read_data(self.memory).reshape(self.images)
        columns = top[0].write_data(self.memory).reshape(self.columns)
        for tap, seen in enumerate(self.windows.views(images, 0)):
            columns[:, :, tap] = seen

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Sum the gradients of all copies of each pixel."""
        if propagate_down[0]:
            columns_diff = top[0].read_diff(self.memory).reshape(self.columns)
            images_diff = bottom[0].write_diff(self.memory).reshape(self.images)
            self.windows.scatter(images_diff, lambda tap: columns_diff[:, :, tap])
