"""Upsample: planes enlarged, by repeating pixels or by putting them back to where a MAX Pooling took them from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.errors import ItemError, UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.resampling import Repetition, Resizing
from dtrain.core.layers.parts.shapes import check_equal_shapes, check_num_axes, name_bottom

SCALES = ("scale_h", "scale_w")
SIZES = ("upsample_h", "upsample_w")
PADS = ("pad_out_h", "pad_out_w")


@LAYERS.register("Upsample")
class Upsample(Layer):
    """One bottom: (…, H, W), enlarged; two: (N, C, H, W) and a mask of that shape, unpooled. Top: (…, P, Q).

    One bottom (MobileNet-YOLO's layer): P = H·scale, Q = W·scale (1 by default; or scale_h and scale_w), and pixel
    (p, q) is pixel (p // scale, q // scale); with dtrain_param.interpolation BILINEAR, as in Interp.

    Two bottoms (SegNet's layer): the mask is the second top of a MAX Pooling, an index p·Q + q for each pixel; that
    is where the pixel goes, and all others are 0. If several go to one place the last one stays. P and Q are
    upsample_h and upsample_w, or H·scale and W·scale (2 by default), with pad_out_h or pad_out_w one less. The mask's
    gradient is 0.
    """

    extensions = ("interpolation",)
    bottoms = Arity(1, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError for fields that don't go together, or not with this number of bottoms."""
        param = self.param.upsample_param
        for one, other in (SCALES, SIZES):
            if param.HasField(one) != param.HasField(other):
                raise UserError(f"upsample_param.{one} and {other} must be given together, got one of them")
        if param.HasField("scale") and param.HasField("scale_h"):
            raise UserError(
                "upsample_param.scale must not be given together with scale_h and scale_w, got both"
            )
        self.unpools = len(bottom) == 2
        self.scales = [self._scale(name) for name in SCALES]
        if self.unpools:
            self._check_unpooling()
        else:
            self._check_enlarging()

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError for bottoms that don't fit."""
        shape = bottom[0].shape
        if self.unpools:
            check_num_axes(self, bottom[0], 4, "N, C, H, W")
            check_equal_shapes(self, bottom)
        elif len(shape) < 2:
            raise UserError(f"{name_bottom(self, 0)} must have rows and columns, got shape {shape}")
        outputs = self._output_size(shape[-2], 0), self._output_size(shape[-1], 1)
        top[0].reshape(*shape[:-2], *outputs)
        dtrain = self.param.dtrain_param
        if dtrain.HasField("interpolation") and dtrain.interpolation == dtrain.BILINEAR:
            self.enlarging: Resizing | Repetition = Resizing(
                self.xp, dtrain.BILINEAR, (shape[-2], shape[-1]), outputs
            )
        else:
            self.enlarging = Repetition(self.xp, (self.scales[0], self.scales[1]))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Enlarge, or unpool. Raises UserError for an index beyond the top's plane."""
        x, y = bottom[0].read_data(self.memory), top[0].write_data(self.memory)
        if self.unpools:
            if self.engine.looks_at_values():
                self._check(bottom[1], y.shape)
            self.places, is_wrong = self._places(bottom[1].read_data(self.memory), y.shape, self.xp)
            y.fill(0)
            values = self.xp.where(is_wrong, x.dtype.type(math.nan), x.reshape(self.places.shape))
            y.reshape(-1)[self.places] = values
        else:
            self.enlarging.forward(x, y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Give each pixel the gradients of what it became."""
        if propagate_down[0]:
            dx, dy = bottom[0].write_diff(self.memory), top[0].read_diff(self.memory)
            if self.unpools:
                dx.reshape(self.places.shape)[...] = dy.reshape(-1)[self.places]
            else:
                self.enlarging.backward(dy, dx)
        if self.unpools and propagate_down[1]:
            bottom[1].write_diff(self.memory).fill(0)

    def _check(self, mask: Blob, shape: tuple[int, ...]) -> None:
        values = mask.read_data()
        _, is_wrong = self._places(values, shape, np)
        if is_wrong.any():
            place = int(is_wrong.argmax())
            raise ItemError(
                f"{name_bottom(self, 1)}, the mask, must hold indices 0 to {shape[2] * shape[3] - 1} of the top's "
                f"plane of {shape[2]} x {shape[3]}, got {float(np.rint(values.reshape(-1)[place])):g}",
                item=place * shape[0] // values.size,
            )

    def _places(self, mask: Any, shape: tuple[int, ...], xp: Any) -> tuple[Any, Any]:
        """Return where in the flat top each pixel goes, and which have no such place, both (planes, pixels)."""
        size = shape[2] * shape[3]
        indices = xp.rint(mask).reshape(shape[0] * shape[1], mask.shape[2] * mask.shape[3])
        is_wrong = ~((indices >= 0) & (indices < size))
        places = xp.where(is_wrong, 0, indices).astype(np.int64)
        return places + xp.arange(len(indices))[:, None] * size, is_wrong

    def _scale(self, name: str) -> int:
        param = self.param.upsample_param
        if param.HasField(name):
            return int(getattr(param, name))
        return param.scale if param.HasField("scale") else 1 + self.unpools

    def _output_size(self, size: int, axis: int) -> int:
        param = self.param.upsample_param
        if param.HasField(SIZES[axis]):
            return int(getattr(param, SIZES[axis]))
        return size * self.scales[axis] - int(getattr(param, PADS[axis]))

    def _check_enlarging(self) -> None:
        param = self.param.upsample_param
        for name in (*SIZES, *PADS):
            if param.HasField(name):
                raise UserError(f"upsample_param.{name} must be left out without a mask (a second bottom)")
        if min(self.scales) < 1:
            raise UserError(f"upsample_param's scale must be at least 1, got {min(self.scales)}")

    def _check_unpooling(self) -> None:
        param = self.param.upsample_param
        if self.param.dtrain_param.HasField("interpolation"):
            raise UserError(
                "dtrain_param.interpolation must be left out with a mask: its indices place the pixels"
            )
        has_sizes = param.HasField(SIZES[0])
        sizes = [getattr(param, name) for name in SIZES] if has_sizes else self.scales
        if min(sizes) < 2:
            what = "upsample_h and upsample_w" if has_sizes else "scale"
            raise UserError(f"upsample_param's {what} must be at least 2 with a mask, got {min(sizes)}")
        for name, scale in zip(PADS, self.scales, strict=True):
            if getattr(param, name) and (has_sizes or scale != 2):
                raise UserError(
                    f"upsample_param.{name} must be left out unless the scale is 2 and no size is given, got it with "
                    + ("upsample_h and upsample_w" if has_sizes else f"scale {scale}")
                )
