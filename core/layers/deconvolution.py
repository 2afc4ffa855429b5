"""Deconvolution: each value of the bottom spreads a learned filter; the gradient of a Convolution as a layer."""

from __future__ import annotations

from typing import ClassVar

from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.convolving import ConvolvingLayer

Shape = tuple[int, ...]


@LAYERS.register("Deconvolution")
class Deconvolution(ConvolvingLayer):
    """Bottoms: (outer…, C, H, …) of one shape, C at `axis`. Tops: (outer…, num_output, P, …), one per bottom.

    P = stride·(H − 1) + dilation·(kernel − 1) + 1 − 2·pad. Params: weight (C, num_output/group, kernel…), bias
    (num_output); shared by all bottoms. With group and num_output C, kernel 2f − f mod 2, stride f, pad
    ceil((f − 1)/2), bias_term false and the filler bilinear it enlarges by f. Follows caffe's deconv_layer.cpp.
    """

    messages = ("convolution_param",)
    transposed: ClassVar[bool] = True

    def output_sizes(self, sizes: Shape) -> Shape:
        """Return P, …. Raises UserError where the pad cuts all of it off."""
        window = self.window
        axes = zip(sizes, window.stride, window.extents, window.pad, strict=True)
        outputs = tuple(stride * (size - 1) + extent - 2 * pad for size, stride, extent, pad in axes)
        for axis, output in enumerate(outputs):
            if output < 1:
                raise UserError(
                    "convolution_param.pad must leave something of the output stride·(input − 1) + extent − "
                    f"2·pad, got {output} with pad {window.pad[axis]} and input {sizes[axis]} along spatial "
                    f"axis {axis}"
                )
        return outputs
