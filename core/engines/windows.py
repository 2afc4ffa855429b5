"""Windows that slide over images, seen tap by tap: one strided view for each place within the window.

Engines and layers whose arithmetic goes over windows use these: pooling, the lowering of a convolution, Im2col.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from dtrain.core.engines.reference.scratch import Scratch

Shape = tuple[int, ...]


def tap_slices(
    kernel: Shape, stride: Shape, dilation: Shape, output: Shape
) -> list[tuple[Shape, tuple[slice, ...]]]:
    """Return for each tap of a kernel its place there, and what of the padded image all windows see through it."""
    return [
        (tap, tuple(map(_tap_slice, tap, dilation, stride, output)))
        for tap in itertools.product(*map(range, kernel))
    ]


def _tap_slice(tap: int, dilation: int, stride: int, num_outputs: int) -> slice:
    start = tap * dilation
    return slice(start, start + (num_outputs - 1) * stride + 1, stride)


class Windows:
    """Windows over an input (N, C, sizes…) that is padded to hold them all.

    y_shape: (N, C, number of windows along each axis…); kernel, stride, pad and dilation: one number per spatial
    axis, dilation 1 unless given. A tap is numbered by its place in the kernel, in row-major order.
    """

    def __init__(
        self,
        xp: Any,
        x_shape: Shape,
        y_shape: Shape,
        kernel: Shape,
        stride: Shape,
        pad: Shape,
        dilation: Shape = (),
    ) -> None:
        dilation = dilation or (1,) * len(kernel)
        extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        axes = tuple(zip(x_shape[2:], y_shape[2:], extents, stride, pad, strict=True))
        spans = [(output - 1) * step + extent for _, output, extent, step, _ in axes]
        padded = [max(span, before + size) for span, (size, *_, before) in zip(spans, axes, strict=True)]
        self.shape = (*x_shape[:2], *padded)
        self.interior = tuple(slice(before, before + size) for size, *_, before in axes)
        self.is_padded = self.shape != x_shape
        self.are_disjoint = all(step >= extent for _, _, extent, step, _ in axes)
        self.taps = [seen for _, seen in tap_slices(kernel, stride, dilation, y_shape[2:])]
        self._xp = xp
        self._data, self._diff = Scratch(xp), Scratch(xp)

    def views(self, x_data: Any, padding: Any) -> Iterator[Any]:
        """Yield for each tap a strided view, of y's shape, on what it sees of x, `padding` beyond the border."""
        padded = x_data
        if self.is_padded:
            padded = self._data.take(self.shape, x_data.dtype)
            padded.fill(padding)
            padded[:, :, *self.interior] = x_data
        return (padded[:, :, *tap] for tap in self.taps)

    def seen(self, x_data: Any, padding: Any) -> Iterator[Any]:
        """Yield what `views` does, made contiguous: strides are paid for once."""
        return map(self._xp.ascontiguousarray, self.views(x_data, padding))

    def scatter(self, x_diff: Any, diff_of_tap: Callable[[int], Any]) -> None:
        """Overwrite x_diff by the sum of diff_of_tap(index), each placed where that tap sees x; index counts up."""
        padded = self._diff.take(self.shape, x_diff.dtype) if self.is_padded else x_diff
        padded.fill(0)
        for index, tap in enumerate(self.taps):
            if self.are_disjoint:
                padded[:, :, *tap] = diff_of_tap(index)
            else:
                padded[:, :, *tap] += diff_of_tap(index)
        if self.is_padded:
            x_diff[...] = padded[:, :, *self.interior]
