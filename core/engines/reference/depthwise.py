"""The reference engine's cross-correlation for convolutions with a group for each channel of their fine side.

What correlation.py does by one large matrix product would here be products of a single row, and their columns most
of the work. Here images are taken apart into phases (phases.py) whose grids stand, for each channel, in one flat run
of values. What a filter tap sees is then that run from the tap's offset on. Only the taps of one kernel line are
copied side by side; a small product with the filters of all lines, and one shifted addition for each line, do the
rest. Where a run passes the end of a line of the grid, it computes values that nobody reads.

fine, coarse and the three operations are those of correlation.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from dtrain.core.engines.engine import Engine
from dtrain.core.engines.reference.phases import Phase, Phases
from dtrain.core.engines.reference.scratch import Scratch

Shape = tuple[int, ...]

BLOCK_VALUES = 1 << 18  # values that a block of images and channels takes up: about a core's cache
MOST_FILTERS = 2  # per channel; with more of them the large matrix product is faster


def is_depthwise(num_fine: int, num_coarse: int, group: int, kernel: Shape) -> bool:
    """Return whether a correlation is faster here than in correlation.py."""
    return group == num_fine > 1 and num_coarse <= MOST_FILTERS * group and math.prod(kernel) > 1


class DepthwiseCorrelation:
    """Cross-correlate with k filters for each channel: weight (C·k, 1, kernel…), coarse (N, C·k, output…)."""

    def __init__(self, engine: Engine, phases: Phases, output: Shape, num_fine: int, num_coarse: int) -> None:
        self.xp = engine.xp
        self.matmul = engine.matmul
        self.grid = phases.grid
        self.output = output
        self.num_filters = num_coarse // num_fine
        self.num_lines, self.line = math.prod(phases.kernel[:-1]), phases.kernel[-1]
        self.across, self.along = phases.along(slice(0, -1)), phases.along(slice(-1, None))
        self.farthest_line, self.farthest_tap = _farthest(self.across), _farthest(self.along)
        self._scratch = {
            name: Scratch(self.xp) for name in ("plane", "columns", "products", "sums", "coarse")
        }

    def correlate(self, fine: Any, weight: Any, bias: Any, coarse: Any) -> None:
        """Overwrite `coarse` by weight ⋆ fine + bias (one per coarse channel; None: no bias)."""
        for images, channels, outputs in self._blocks(fine):
            block, filters = fine[images, channels], self._filters(weight[outputs])
            sums = self._take("sums", block, self.num_filters, self._num_places(block))
            run = sums.shape[2] - self.farthest_line - self.farthest_tap
            is_first = True
            for lines in filter(_is_seen, self.across):
                products = self._products(filters[:, :, lines.selection], self._columns(block, lines))
                shifted = [products[:, :, i, tap.offset :][..., :run] for i, tap in enumerate(lines.taps)]
                self._sum(shifted, sums[:, :, :run], is_first)
                is_first = False
            self._write_coarse(sums, None if bias is None else bias[outputs], coarse[images, outputs])

    def spread(self, coarse: Any, weight: Any, fine: Any) -> None:
        """Overwrite `fine` by weightᵀ ⋆ coarse: each coarse value times its filter, summed where it fell."""
        for images, channels, outputs in self._blocks(fine):
            block, filters = fine[images, channels], self._filters(weight[outputs])
            padded = self._padded_coarse(coarse[images, outputs], block)
            for taps in self.along:
                columns = self._coarse_columns(padded, block, taps)
                for lines in self.across:
                    target = block[:, :, *lines.image, *taps.image]
                    if not (lines.taps and taps.taps):
                        target[...] = 0
                        continue
                    seeing = filters[:, :, lines.selection][..., taps.selection]
                    plane = self._spread_phase(block, columns, seeing, lines)
                    target[...] = self._as_images(plane)[:, :, *lines.grid, *taps.grid]

    def add_weight_gradient(self, fine: Any, coarse: Any, weight_diff: Any) -> None:
        """Add the gradient of ⟨coarse, weight ⋆ fine⟩ in the weight to `weight_diff`."""
        for images, channels, outputs in self._blocks(fine):
            block, filters_diff = fine[images, channels], self._filters(weight_diff[outputs])
            padded = self._padded_coarse(coarse[images, outputs], block)
            for lines in filter(_is_seen, self.across):
                columns = self._columns(block, lines)
                run = columns.shape[2]
                shifted = self._take("products", block, self.num_filters, len(lines.taps), run)
                for i, tap in enumerate(lines.taps):
                    start = self.farthest_line + self.farthest_tap - tap.offset
                    shifted[:, :, i] = padded[:, :, start : start + run]
                rows = shifted.reshape(len(shifted), -1, run)
                product = self.matmul(rows, columns.transpose(0, 2, 1))
                filters_diff[:, :, lines.selection] += product.reshape(*shifted.shape[:3], self.line)

    # -- layout --------------------------------------------------------------------------------------------

    def _blocks(self, images: Any) -> Iterator[tuple[slice, slice, slice]]:
        """Yield which images, which fine and which coarse channels are done together."""
        num_images, num_channels = images.shape[:2]
        values = math.prod(self.grid) * (1 + self.line + self.num_filters * (1 + self.num_lines))
        most_images = max(1, BLOCK_VALUES // values)
        most_channels = max(1, most_images // max(1, num_images))
        for image in range(0, num_images, most_images):
            for channel in range(0, num_channels, most_channels):
                end = min(channel + most_channels, num_channels)
                outputs = slice(channel * self.num_filters, end * self.num_filters)
                yield slice(image, image + most_images), slice(channel, end), outputs

    def _take(self, name: str, block: Any, *shape: int) -> Any:
        """Return the scratch called `name`: for each channel of the block an array of `shape`."""
        return self._scratch[name].take((block.shape[1], *shape), block.dtype)

    def _num_places(self, block: Any) -> int:
        return len(block) * math.prod(self.grid)

    def _filters(self, weight: Any) -> Any:
        """Return the weight as (C, k, kernel lines, taps of a line)."""
        return weight.reshape(-1, self.num_filters, self.num_lines, self.line)

    def _as_images(self, runs: Any) -> Any:
        """Return runs (C, N·places) as images (N, C, grid…)."""
        return runs.reshape(len(runs), -1, *self.grid).swapaxes(0, 1)

    def _write_coarse(self, sums: Any, bias: Any, coarse: Any) -> None:
        images = self._as_images(sums.reshape(-1, sums.shape[2]))[:, :, *map(slice, self.output)]
        if bias is None:
            coarse[...] = images
        else:
            self.xp.add(images, bias.reshape(-1, *[1] * len(self.output)), out=coarse)

    def _padded_coarse(self, coarse: Any, block: Any) -> Any:
        """Return coarse as runs (C, k, places), each behind zeros for the farthest tap, 0 beyond the output."""
        before = self.farthest_line + self.farthest_tap
        padded = self._take("coarse", block, self.num_filters, before + self._num_places(block))
        padded.fill(0)
        runs = padded.reshape(-1, padded.shape[2])[:, before:]
        self._as_images(runs)[:, :, *map(slice, self.output)] = coarse
        return padded

    # -- arithmetic ----------------------------------------------------------------------------------------

    def _columns(self, block: Any, lines: Phase) -> Any:
        """Return what the taps of a kernel line see, (C, taps, run), in one phase across the lines."""
        plane = self._take("plane", block, self._num_places(block))
        run = plane.shape[1] - self.farthest_tap
        columns = self._take("columns", block, self.line, run)
        for taps in filter(_is_seen, self.along):
            plane.fill(0)
            self._as_images(plane)[:, :, *lines.grid, *taps.grid] = block[:, :, *lines.image, *taps.image]
            for tap in taps.taps:
                columns[:, tap.index] = plane[:, tap.offset :][:, :run]
        return columns

    def _products(self, filters: Any, columns: Any) -> Any:
        """Return (C, k, lines, run): filters (C, k, lines, taps) times columns (C, taps, run)."""
        num_channels, *rows, num_taps = filters.shape
        products = self._scratch["products"].take(
            (num_channels, math.prod(rows), columns.shape[2]), columns.dtype
        )
        self.matmul(filters.reshape(num_channels, -1, num_taps), columns, out=products)
        return products.reshape(num_channels, *rows, -1)

    def _coarse_columns(self, padded: Any, block: Any, taps: Phase) -> Any:
        """Return what reaches a fine line through each filter's taps of one phase, (C, k·taps, run)."""
        run = self._num_places(block) + self.farthest_line
        columns = self._take("columns", block, self.num_filters, len(taps.taps), run)
        for i, tap in enumerate(taps.taps):
            columns[:, :, i] = padded[:, :, self.farthest_tap - tap.offset :][..., :run]
        return columns.reshape(block.shape[1], self.num_filters * len(taps.taps), run)

    def _spread_phase(self, block: Any, columns: Any, filters: Any, lines: Phase) -> Any:
        """Return one phase of the fine side, (C, places); filters: those of the lines and taps that see it."""
        by_line = filters.transpose(0, 2, 1, 3).reshape(len(columns), 1, len(lines.taps), columns.shape[1])
        products = self._products(by_line, columns)
        plane = self._take("plane", block, self._num_places(block))
        starts = [self.farthest_line - tap.offset for tap in lines.taps]
        shifted = [products[:, 0, i, at : at + plane.shape[1]] for i, at in enumerate(starts)]
        self._sum(shifted, plane, True)
        return plane

    def _sum(self, parts: Sequence[Any], target: Any, is_first: bool) -> None:
        """Overwrite `target` by the sum of the parts, or add them to it where it is not the first time."""
        if is_first and len(parts) > 1:
            self.xp.add(parts[0], parts[1], out=target)
            parts = parts[2:]
        elif is_first:
            target[...] = parts[0]
            parts = ()
        for part in parts:
            target += part


def _farthest(phases: Sequence[Phase]) -> int:
    return max(tap.offset for phase in phases for tap in phase.taps)


def _is_seen(phase: Phase) -> bool:
    return bool(phase.taps)
