"""The reference engine's cross-correlation on plain arrays, from which both kinds of convolution are made.

With `fine` images (N, C, spatial…), `coarse` images (N, K, output…) and a weight (K, C/group, kernel…):
correlate is coarse = weight ⋆ fine; spread is its adjoint in fine, add_weight_gradient that in the weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from dtrain.core.engines.engine import Engine
from dtrain.core.engines.reference.lowering import Lowering
from dtrain.core.engines.reference.scratch import Scratch

BLOCK_VALUES = 1 << 18  # columns per block: about a core's cache


class Correlation:
    """Cross-correlate blocks of images small enough for a block's columns to stay in a core's cache.

    To lower images once more for the weight's gradient is then cheaper than to keep the columns of all.
    """

    def __init__(
        self, engine: Engine, lowering: Lowering, num_fine: int, num_coarse: int, group: int
    ) -> None:
        self.xp = engine.xp
        self.matmul = engine.matmul
        self.lowering = lowering
        self.num_fine = num_fine
        self.num_coarse = num_coarse
        self.group = group
        self.filter_size = num_fine // group * math.prod(lowering.kernel)
        self.block = max(1, BLOCK_VALUES // math.prod(lowering.columns_shape(num_fine, 1)))
        self._columns = Scratch(self.xp)
        self._coarse_columns = Scratch(self.xp)

    def correlate(self, fine: Any, weight: Any, bias: Any, coarse: Any) -> None:
        """Overwrite `coarse` by weight ⋆ fine + bias (one per coarse channel; None: no bias)."""
        filters = self._filters(weight)
        for block in self._blocks(fine):
            columns = self._lower(fine[block])
            product = self._take_coarse_columns(coarse[block])
            self.matmul(filters, columns, out=self._by_group(product))
            images = self.xp.moveaxis(product, -1, 0)
            if bias is None:
                coarse[block] = images
            else:
                self.xp.add(images, bias.reshape(-1, *[1] * (images.ndim - 2)), out=coarse[block])

    def spread(self, coarse: Any, weight: Any, fine: Any) -> None:
        """Overwrite `fine` by weightᵀ ⋆ coarse: each coarse value times its filter, summed where it fell."""
        filters = self._filters(weight).transpose(0, 2, 1)
        for block in self._blocks(fine):
            columns = self._take_columns(fine[block])
            self.matmul(filters, self._lower_coarse(coarse[block]), out=self._by_group(columns))
            self.lowering.sum_back(columns, fine[block])

    def add_weight_gradient(self, fine: Any, coarse: Any, weight_diff: Any) -> None:
        """Add the gradient of ⟨coarse, weight ⋆ fine⟩ in the weight to `weight_diff`."""
        filters_diff = self._filters(weight_diff).transpose(0, 2, 1)  # BLAS is a third faster this way round
        for block in self._blocks(fine):
            columns = self._lower(fine[block])
            filters_diff += self.matmul(columns, self._lower_coarse(coarse[block]).transpose(0, 2, 1))

    def _blocks(self, images: Any) -> Iterator[slice]:
        return (slice(start, start + self.block) for start in range(0, len(images), self.block))

    def _filters(self, weight: Any) -> Any:
        return weight.reshape(self.group, self.num_coarse // self.group, self.filter_size)

    def _by_group(self, columns: Any) -> Any:
        return columns.reshape(self.group, -1, math.prod(self.lowering.output) * columns.shape[-1])

    def _take_columns(self, fine: Any) -> Any:
        return self._columns.take(self.lowering.columns_shape(self.num_fine, len(fine)), fine.dtype)

    def _take_coarse_columns(self, coarse: Any) -> Any:
        return self._coarse_columns.take((*coarse.shape[1:], len(coarse)), coarse.dtype)

    def _lower(self, fine: Any) -> Any:
        columns = self._take_columns(fine)
        self.lowering.lower(fine, columns)
        return self._by_group(columns)

    def _lower_coarse(self, coarse: Any) -> Any:
        columns = self._take_coarse_columns(coarse)
        columns[...] = self.xp.moveaxis(coarse, 0, -1)
        return self._by_group(columns)
