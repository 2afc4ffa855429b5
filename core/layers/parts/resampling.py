"""Planes resized along their rows and columns: bilinear with aligned corners, or nearest.

Along an axis every output is a sum of a few inputs times weights, whose numbers stand in a table. The adjoint, which
carries gradients back, is of the same kind: its table is the other one turned round. So both directions gather.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.proto import caffe_pb2

BLOCK_VALUES = 1 << 17  # outputs that are computed together: with what they are made of about a core's cache


@dataclass(frozen=True)
class Table:
    """Output o along an axis is Σ_k weights[k, o] · input[indices[k, o]]; both arrays are (taps, outputs)."""

    indices: NDArray[np.int64]
    weights: NDArray[np.float64]

    @property
    def num_outputs(self) -> int:
        """The length of the axis afterwards."""
        return int(self.indices.shape[1])

    def adjoint(self, num_inputs: int) -> Table:
        """Return the table of the transposed map, from the outputs back to `num_inputs` inputs."""
        outputs = np.broadcast_to(np.arange(self.num_outputs), self.indices.shape)
        used = self.weights != 0
        inputs, outputs, weights = self.indices[used], outputs[used], self.weights[used]
        order = np.argsort(inputs, kind="stable")
        counts = np.bincount(inputs, minlength=num_inputs)
        taps = np.arange(inputs.size) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (max(1, counts.max(initial=0)), num_inputs)
        turned = Table(np.zeros(shape, np.int64), np.zeros(shape))
        turned.indices[taps, inputs[order]] = outputs[order]
        turned.weights[taps, inputs[order]] = weights[order]
        return turned


def bilinear_table(num_inputs: int, num_outputs: int) -> Table:
    """Return how outputs lie between inputs if the first and the last of both coincide.

    Output o lies at o·(num_inputs − 1)/(num_outputs − 1), computed in float32 as PSPNet's interp_layer.cpp does.
    """
    ratio = np.float32(num_inputs - 1) / np.float32(num_outputs - 1) if num_outputs > 1 else np.float32(0)
    places = ratio * np.arange(num_outputs, dtype=np.float32)
    first = np.minimum(places.astype(np.int64), num_inputs - 1)
    fraction = (places - first.astype(np.float32)).astype(np.float64)
    second = np.minimum(first + 1, num_inputs - 1)
    return Table(np.stack([first, second]), np.stack([1 - fraction, fraction]))


def nearest_table(num_inputs: int, num_outputs: int) -> Table:
    """Return that output o is input floor(o·num_inputs/num_outputs)."""
    indices = np.arange(num_outputs) * num_inputs // num_outputs
    return Table(indices[None], np.ones((1, num_outputs)))


TABLES = {
    caffe_pb2.DtrainLayerParameter.BILINEAR: bilinear_table,
    caffe_pb2.DtrainLayerParameter.NEAREST: nearest_table,
}


class Repetition:
    """Make every pixel of planes (…, H, W) a block of `copies` (rows, columns), and sum gradients up again."""

    def __init__(self, xp: Any, copies: tuple[int, int]) -> None:
        self.xp = xp
        self.copies = copies

    def forward(self, x: Any, y: Any) -> None:
        """Overwrite y by x with its pixels repeated."""
        blocks = self._blocks(y)
        blocks[...] = x.reshape(len(blocks), x.shape[-2], 1, x.shape[-1], 1)

    def backward(self, y_diff: Any, x_diff: Any) -> None:
        """Overwrite x_diff by the sum of each block of y_diff."""
        blocks = self._blocks(y_diff)
        sums = x_diff.reshape(len(blocks), *x_diff.shape[-2:])
        sums.fill(0)
        for row in range(self.copies[0]):
            for column in range(self.copies[1]):
                sums += blocks[:, :, row, :, column]

    def _blocks(self, y: Any) -> Any:
        """Return y as (planes, H, rows of a block, W, columns of a block)."""
        rows, columns = self.copies
        return y.reshape(math.prod(y.shape[:-2]), y.shape[-2] // rows, rows, y.shape[-1] // columns, columns)


class Resizing:
    """Resize planes of `sizes` (H, W) to `outputs` (P, Q), and carry gradients back.

    Planes stand in arrays (…, H, W) and (…, P, Q); the axes before are the same.
    """

    def __init__(
        self,
        xp: Any,
        interpolation: caffe_pb2.DtrainLayerParameter.Interpolation,
        sizes: tuple[int, int],
        outputs: tuple[int, int],
    ) -> None:
        self.xp = xp
        tables = [TABLES[interpolation](*lengths) for lengths in zip(sizes, outputs, strict=True)]
        self._forward = tables
        self._arrays: dict[
            tuple[int, np.dtype[Any]], list[tuple[Any, Any]]
        ] = {}  # of tables by identity, of dtypes
        self._backward = [table.adjoint(size) for table, size in zip(tables, sizes, strict=True)]

    def forward(self, x: Any, y: Any) -> None:
        """Overwrite y by the resized x."""
        self._apply(self._forward, x, y)

    def backward(self, y_diff: Any, x_diff: Any) -> None:
        """Overwrite x_diff by the gradient that y_diff gives it."""
        self._apply(self._backward, y_diff, x_diff)

    def _apply(self, tables: list[Table], x: Any, y: Any) -> None:
        num_planes = math.prod(x.shape[:-2])
        planes, results = x.reshape(num_planes, *x.shape[-2:]), y.reshape(num_planes, *y.shape[-2:])
        larger = max(planes.shape[1] * planes.shape[2], results.shape[1] * results.shape[2], 1)
        block = max(1, BLOCK_VALUES // larger)
        # The axis that shrinks comes first, so that the other has fewer values to work on.
        axes = (1, 2) if results.shape[1] < planes.shape[1] else (2, 1)
        for start in range(0, len(planes), block):
            part = planes[start : start + block]
            for axis in axes:
                part = self._along(part, tables[axis - 1], axis)
            results[start : start + block] = part

    def _taps(self, table: Table, dtype: np.dtype[Any]) -> list[tuple[Any, Any]]:
        """Return the indices and weights of each tap as arrays of the module, made once."""
        key = id(table), dtype
        if key not in self._arrays:
            self._arrays[key] = [
                (self.xp.asarray(indices), self.xp.asarray(weights.astype(dtype)))
                for indices, weights in zip(table.indices, table.weights, strict=True)
            ]
        return self._arrays[key]

    def _along(self, x: Any, table: Table, axis: int) -> Any:
        """Return x with `axis` (1 or 2) as the table says."""
        total: Any = None
        for indices, weights in self._taps(table, x.dtype):
            taken = x.take(indices, axis=axis)
            taken *= weights.reshape(-1, *[1] * (2 - axis))
            total = taken if total is None else self.xp.add(total, taken, out=total)
        return total
