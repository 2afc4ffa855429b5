"""ShuffleChannel: channels of several groups dealt in turn, so that group convolutions mix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.core.layers.parts.shapes import check_num_axes


@LAYERS.register("ShuffleChannel")
class ShuffleChannel(Layer):
    """Bottom and top: (N, C, H, W). Top channel j·group + i is bottom channel i·(C/group) + j.

    Follows shuffle_channel_layer.cpp of farmingyard's ShuffleNet.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape. Raises UserError unless `group` divides the channels of 4 axes."""
        check_num_axes(self, bottom[0], 4, "N, C, H, W")
        self.group, num_channels = self.param.shuffle_channel_param.group, bottom[0].shape[1]
        if self.group < 1 or num_channels % self.group:
            raise UserError(
                f"shuffle_channel_param.group must divide the bottom's channels ({num_channels}), got {self.group}"
            )
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Deal the channels."""
        dealt, in_groups = self._dealt(top[0].write_data(self.memory)), bottom[0].read_data(self.memory)
        dealt[...] = in_groups.reshape(dealt.shape)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Collect them again."""
        if propagate_down[0]:
            dealt = self._dealt(top[0].read_diff(self.memory))
            bottom[0].write_diff(self.memory).reshape(dealt.shape)[...] = dealt

    def _dealt(self, y: Any) -> Any:
        """Return an array of the top's shape as (N, group, C/group, H, W), where the bottom's channels are."""
        num_images, num_channels, *sizes = y.shape
        return y.reshape(num_images, num_channels // self.group, self.group, *sizes).swapaxes(1, 2)
