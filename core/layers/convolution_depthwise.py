"""ConvolutionDepthwise: caffe-mobilenet's name for a Convolution with one filter for each channel."""

from __future__ import annotations

from dtrain.core.errors import UserError
from dtrain.core.layers.convolution import Convolution
from dtrain.core.layers.layer import LAYERS


@LAYERS.register("ConvolutionDepthwise")
class ConvolutionDepthwise(Convolution):
    """As Convolution with group = num_output = C, whether they are given or not: the weight is (C, 1, kernel…).

    Weights are interchangeable with Convolution's. Its authors' code pays no heed to num_output and group; here
    values other than C are an error. Follows conv_dw_layer of farmingyard's caffe-mobilenet.
    """

    messages = ("convolution_param",)

    def find_counts(self) -> tuple[int, int]:
        """Return C and C. Raises UserError if num_output or group is given and another."""
        param = self.param.convolution_param
        for name in ("num_output", "group"):
            if param.HasField(name) and getattr(param, name) != self.num_channels:
                raise UserError(
                    f"convolution_param.{name} must be left out or be the bottom's channels "
                    f"({self.num_channels}) for {self.type}, got {getattr(param, name)}; or use Convolution"
                )
        return self.num_channels, self.num_channels
