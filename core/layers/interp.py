"""Interp: planes resized, bilinear with aligned corners."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.core.layers.parts.resampling import Resizing
from dtrain.core.layers.parts.shapes import check_num_axes


@LAYERS.register("Interp")
class Interp(Layer):
    """Bottom: (N, C, H, W). Top: (N, C, P, Q), whose corner pixels are those of the bottom.

    pad_beg and pad_end (0 or less) first cut rows and columns off: H' = H + pad_beg + pad_end. Then shrink_factor
    gives P = (H' − 1) // shrink + 1, zoom_factor P = H' + (H' − 1)·(zoom − 1), both one after the other, or height
    and width P and Q. With dtrain_param.interpolation NEAREST pixel p is pixel floor(p·H'/P). Follows PSPNet's
    interp_layer.cpp.
    """

    extensions = ("interpolation",)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError for pads above 0, and factors below 1."""
        param = self.param.interp_param
        for name in ("pad_beg", "pad_end"):
            if getattr(param, name) > 0:
                raise UserError(
                    f"interp_param.{name} must be at most 0 (it cuts off), got {getattr(param, name)}"
                )
        for name in ("shrink_factor", "zoom_factor"):
            if getattr(param, name) < 1:
                raise UserError(f"interp_param.{name} must be at least 1, got {getattr(param, name)}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError if a size is not given, or nothing is left."""
        check_num_axes(self, bottom[0], 4, "N, C, H, W")
        param, shape = self.param.interp_param, bottom[0].shape
        first, cut = -param.pad_beg, param.pad_beg + param.pad_end
        sizes = (shape[2] + cut, shape[3] + cut)
        if min(sizes) < 1:
            raise UserError(
                f"interp_param.pad_beg and pad_end must leave something of the bottom, got {param.pad_beg} and "
                f"{param.pad_end} for shape {shape}"
            )
        self.inside = (..., slice(first, first + sizes[0]), slice(first, first + sizes[1]))
        outputs = self._output_size(sizes[0], param.height), self._output_size(sizes[1], param.width)
        top[0].reshape(*shape[:2], *outputs)
        interpolation = self.param.dtrain_param.interpolation  # unset: BILINEAR
        self.resizing = None if sizes == outputs else Resizing(self.xp, interpolation, sizes, outputs)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Resize, or copy if the size stays."""
        x, y = bottom[0].read_data(self.memory)[self.inside], top[0].write_data(self.memory)
        if self.resizing is None:
            y[...] = x
        else:
            self.resizing.forward(x, y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Give each pixel its share of the gradients; what was cut off has gradient 0."""
        if not propagate_down[0]:
            return
        dx, dy = bottom[0].write_diff(self.memory), top[0].read_diff(self.memory)
        dx.fill(0)
        if self.resizing is None:
            dx[self.inside] = dy
        else:
            self.resizing.backward(dy, dx[self.inside])

    def _output_size(self, size: int, wanted: int) -> int:
        param = self.param.interp_param
        shrinks, zooms = param.HasField("shrink_factor"), param.HasField("zoom_factor")
        if shrinks or zooms:
            if shrinks:
                size = (size - 1) // param.shrink_factor + 1
            return size + (size - 1) * (param.zoom_factor - 1) if zooms else size
        if not (param.HasField("height") and param.HasField("width")) or wanted < 1:
            raise UserError(
                "interp_param must give shrink_factor, zoom_factor or both, or height and width of at least 1, got "
                f"height {param.height} and width {param.width}"
            )
        return wanted
