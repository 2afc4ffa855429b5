"""Convolution: cross-correlation of each item with learned filters, over any number of spatial axes."""

from __future__ import annotations

from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.convolving import ConvolvingLayer

Shape = tuple[int, ...]


@LAYERS.register("Convolution")
class Convolution(ConvolvingLayer):
    """Bottoms: (outer…, C, H, …) of one shape, C at `axis`. Tops: (outer…, num_output, P, …), one per bottom.

    P = floor((H + 2·pad − (dilation·(kernel − 1) + 1)) / stride) + 1. Params: weight (num_output, C/group,
    kernel…), bias (num_output); shared by all bottoms. force_nd_im2col changes nothing here: there is one way
    for any number of axes. Follows caffe's conv_layer.cpp and base_conv_layer.cpp.
    """

    def output_sizes(self, sizes: Shape) -> Shape:
        """Return P, …. Raises UserError where the kernel does not fit into the padded bottom."""
        return self.window.output_sizes(sizes, "convolution_param")
