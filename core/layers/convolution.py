"""Convolution: cross-correlation of each item with learned filters, over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ConvolutionSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.shapes import check_equal_shapes
from dtrain.core.layers.parts.spatial import convolution_window
from dtrain.core.layers.parts.weighted import WeightedLayer, check_num_output

Shape = tuple[int, ...]


@LAYERS.register("Convolution")
class Convolution(WeightedLayer):
    """Bottoms: (outer…, C, H, …) of one shape, C at `axis`. Tops: (outer…, num_output, P, …), one per bottom.

    P = floor((H + 2·pad − (dilation·(kernel − 1) + 1)) / stride) + 1. Params: weight (num_output, C/group,
    kernel…), bias (num_output); shared by all bottoms. force_nd_im2col changes nothing here: there is one way
    for any number of axes. Follows caffe's conv_layer.cpp and base_conv_layer.cpp.
    """

    bottoms = Arity(1, None)
    tops = Arity(1, None)
    equal_bottoms_tops = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the window and create the params. Raises UserError for fields that can't be."""
        param = self.param.convolution_param
        self.num_axes = len(bottom[0].shape)
        self.axis = self.canonical_axis(param.axis, self.num_axes, "convolution_param.axis")
        check_num_output(param.num_output, "convolution_param")
        self.window = convolution_window(param, self.num_axes - self.axis - 1)
        self.num_channels = bottom[0].shape[self.axis]
        for count, what in ((self.num_channels, "the bottom's channels"), (param.num_output, "num_output")):
            if param.group < 1 or count % param.group:
                raise UserError(f"convolution_param.group must divide {what} ({count}), got {param.group}")
        weight_shape = (param.num_output, self.num_channels // param.group, *self.window.kernel)
        self.add_params(weight_shape, param.num_output, param)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError if bottoms differ, don't fit the weight or are too small."""
        check_equal_shapes(self, bottom)
        shape = bottom[0].shape
        if len(shape) != self.num_axes or shape[self.axis] != self.num_channels:
            raise UserError(
                f"the bottom must have {self.num_axes} axes and {self.num_channels} channels at axis "
                f"{self.axis}, as the weight {self.weight.shape} was made for, got shape {shape}"
            )
        spec = self._spec(shape)
        for blob in top:
            blob.reshape(*spec.y_shape)
        # One operation per bottom: each may keep what its own backward needs.
        self.operations = [self.engine.create(spec) for _ in bottom]

    def _spec(self, shape: Shape) -> ConvolutionSpec:
        param, window = self.param.convolution_param, self.window
        sizes = window.output_sizes(shape[self.axis + 1 :], "convolution_param")
        return ConvolutionSpec(
            x_shape=shape,
            weight_shape=self.weight.shape,
            y_shape=(*shape[: self.axis], param.num_output, *sizes),
            axis=self.axis,
            stride=window.stride,
            pad=window.pad,
            dilation=window.dilation,
            group=param.group,
            bias=self.bias is not None,
        )
