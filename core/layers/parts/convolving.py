"""What Convolution and Deconvolution share: fields, params, and one operation of the engine per bottom.

Follows caffe's base_conv_layer.cpp.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ConvolutionSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Arity
from dtrain.core.layers.parts.shapes import check_equal_shapes
from dtrain.core.layers.parts.spatial import convolution_window
from dtrain.core.layers.parts.weighted import WeightedLayer, check_num_output

Shape = tuple[int, ...]


class ConvolvingLayer(WeightedLayer):
    """Bottoms: (outer…, C, H, …) of one shape, C at `axis`. Tops: (outer…, num_output, P, …), one per bottom.

    The params are shared by all bottoms. force_nd_im2col and engine, which choose among Caffe's ways to the same
    result, change nothing here.
    """

    bottoms = Arity(1, None)
    tops = Arity(1, None)
    equal_bottoms_tops = True
    transposed: ClassVar[bool] = False
    backward_reads_tops = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the window and create the params. Raises UserError for fields that can't be."""
        param = self.param.convolution_param
        self.num_axes = len(bottom[0].shape)
        self.axis = self.canonical_axis(param.axis, self.num_axes, "convolution_param.axis")
        self.num_channels = bottom[0].shape[self.axis]
        self.num_output, self.group = self.find_counts()
        self.window = convolution_window(param, self.num_axes - self.axis - 1)
        counts = ((self.num_channels, "the bottom's channels"), (self.num_output, "num_output"))
        for count, what in counts:
            if self.group < 1 or count % self.group:
                raise UserError(f"convolution_param.group must divide {what} ({count}), got {self.group}")
        of, over = (
            (self.num_channels, self.num_output) if self.transposed else (self.num_output, self.num_channels)
        )
        self.add_params((of, over // self.group, *self.window.kernel), self.num_output, param)

    def find_counts(self) -> tuple[int, int]:
        """Return num_output and group. Raises UserError if they can't be."""
        param = self.param.convolution_param
        check_num_output(param.num_output, "convolution_param")
        return param.num_output, param.group

    @abstractmethod
    def output_sizes(self, sizes: Shape) -> Shape:
        """Return the tops' spatial sizes for those of the bottoms. Raises UserError if nothing would be left."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError if bottoms differ, don't fit the weight or are too small."""
        check_equal_shapes(self, bottom)
        shape = bottom[0].shape
        if len(shape) != self.num_axes or shape[self.axis] != self.num_channels:
            raise UserError(
                f"the bottom must have {self.num_axes} axes and {self.num_channels} channels at axis "
                f"{self.axis}, as the weight {self.weight.shape} was made for, got shape {shape}"
            )
        self.spec = self._make_spec(shape)
        for blob in top:
            blob.reshape(*self.spec.y_shape)
        # One operation per bottom: each may keep what its own backward needs.
        self.operations = [self.engine.create(self.spec) for _ in bottom]

    def _make_spec(self, shape: Shape) -> ConvolutionSpec:
        sizes = self.output_sizes(shape[self.axis + 1 :])
        return ConvolutionSpec(
            x_shape=shape,
            weight_shape=self.weight.shape,
            y_shape=(*shape[: self.axis], self.num_output, *sizes),
            axis=self.axis,
            stride=self.window.stride,
            pad=self.window.pad,
            dilation=self.window.dilation,
            group=self.group,
            bias=self.bias is not None,
            transposed=self.transposed,
        )
