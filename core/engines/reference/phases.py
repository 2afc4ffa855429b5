"""Images stride by stride: the geometry that lets every tap of a filter be a shift by a fixed distance.

Phase (a, b) of an image are its padded pixels (a + i·stride, b + j·stride). A filter tap sees consecutive pixels of
one phase; with the phase's grid written as one flat run of values, it sees those from its offset on. The reference
engine's depthwise convolution (depthwise.py) is made of such shifts.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tap:
    """A filter tap: its index among all taps, and where in the flat grid of its phase what it sees begins."""

    index: int
    offset: int


@dataclass(frozen=True)
class Phase:
    """One in `stride` of the places along some axes, and the taps that see it.

    grid, image: where its pixels are, in the phase's grid and in the image; the rest of the grid is padding.
    """

    grid: tuple[slice, ...]
    image: tuple[slice, ...]
    taps: tuple[Tap, ...]

    @property
    def indices(self) -> list[int]:
        """The indices of the taps."""
        return [tap.index for tap in self.taps]

    @property
    def selection(self) -> list[int] | slice:
        """What picks the taps: a slice where equal steps lead from one to the next, else the indices."""
        indices = self.indices
        step = indices[1] - indices[0] if len(indices) > 1 else 1
        run = range(indices[0], indices[-1] + 1, step) if indices else range(0)
        return slice(run.start, run.stop, step) if list(run) == indices else indices


@dataclass(frozen=True)
class Phases:
    """The phases of images under a kernel; every field has one entry per spatial axis."""

    image: Shape
    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def grid(self) -> Shape:
        """The size of each phase's grid: (image + 2·pad) / stride, rounded up."""
        axes = zip(self.image, self.pad, self.stride, strict=True)
        return tuple(-(-(size + 2 * pad) // stride) for size, pad, stride in axes)

    def along(self, axes: slice) -> list[Phase]:
        """Return the phases along some of the axes, in row-major order."""
        return [
            Phase(*self._places(starts, axes), self._taps(starts, axes))
            for starts in itertools.product(*map(range, self.stride[axes]))
        ]

    def _places(self, starts: Shape, axes: slice) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        each = zip(starts, self.image[axes], self.stride[axes], self.pad[axes], self.grid[axes], strict=True)
        pairs = [_places(*sizes) for sizes in each]
        return tuple(grid for grid, _ in pairs), tuple(image for _, image in pairs)

    def _taps(self, starts: Shape, axes: slice) -> tuple[Tap, ...]:
        steps = [math.prod(self.grid[axis + 1 :]) for axis in range(len(self.grid))][axes]
        taps = []
        for index, tap in enumerate(itertools.product(*map(range, self.kernel[axes]))):
            places = [t * dilation for t, dilation in zip(tap, self.dilation[axes], strict=True)]
            if all(p % s == start for p, s, start in zip(places, self.stride[axes], starts, strict=True)):
                each = zip(places, self.stride[axes], steps, strict=True)
                taps.append(Tap(index, sum(place // stride * step for place, stride, step in each)))
        return tuple(taps)


def _places(start: int, size: int, stride: int, pad: int, grid: int) -> tuple[slice, slice]:
    """Return which places of one axis' phase are pixels, and which pixels; it begins at padded pixel `start`."""
    first = max(0, -(-(pad - start) // stride))
    end = max(first, min(grid, (size + pad - start - 1) // stride + 1))
    pixel = first * stride + start - pad
    return slice(first, end), slice(pixel, pixel + (end - first) * stride, stride)
