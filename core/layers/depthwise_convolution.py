"""DepthwiseConvolution: MobileNet-YOLO's name for a Convolution with one filter for each channel."""

from __future__ import annotations

from dtrain.core.errors import UserError
from dtrain.core.layers.convolution import Convolution
from dtrain.core.layers.layer import LAYERS


@LAYERS.register("DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """As Convolution with group = num_output = C, which must be given so: the weight is (C, 1, kernel…).

    Weights are interchangeable with Convolution's. Where group or num_output is another, its authors' GPU code is
    silently wrong; here it is an error. Follows depthwise_conv_layer of eric612's MobileNet-YOLO.
    """

    messages = ("convolution_param",)

    def find_counts(self) -> tuple[int, int]:
        """Return num_output and group. Raises UserError unless both are the bottom's channels."""
        num_output, group = super().find_counts()
        for name, given in (("num_output", num_output), ("group", group)):
            if given != self.num_channels:
                raise UserError(
                    f"convolution_param.{name} must be the bottom's channels ({self.num_channels}) for "
                    f"{self.type}, got {given}; or use Convolution"
                )
        return num_output, group
