"""What gradients travel as: as they are, in 16 bits, or as a user's own compression makes them.

In the flow prototxt → graph → net → solver → communicator → snapshot the reducer compresses a bucket before its
all_reduce and decompresses the sum. Master values stay float32 on every rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from dtrain.dist.communicator import BFLOAT16, Array
from dtrain.dist.cupy_library import load_cupy
from dtrain.dist.nccl_kernels import HalfKernels


class Wire(ABC):
    """A form in which buckets travel, one that can be summed value by value.

    To bring one of your own, derive from this class and hand it to the Solver; all ranks must use the same. What
    a compression leaves out it may keep and add to the next gradient (error feedback): buckets have numbers, the
    same ones in each iteration.

    Attributes:
        dtype: of what travels, one that communicators take.
    """

    dtype: np.dtype[np.generic]

    def size(self, num_values: int) -> int:
        """Return how many elements of `dtype` carry `num_values` values."""
        return num_values

    @abstractmethod
    def compress(self, bucket: int, values: Array, wire: Array) -> None:
        """Fill `wire`, (size(n),) of `dtype`, from `values`, (n,) float32, which may be changed too."""

    @abstractmethod
    def decompress(self, bucket: int, wire: Array, values: Array) -> None:
        """Fill `values` with the sums over all ranks, given the sums in `wire`."""


class HalfWire(Wire):
    """A form of 16 bits: float32 multiplied and rounded, here by numpy, on a GPU by kernels of our own.

    One wire is for arrays of the host or for those of a GPU, not both; the bits are the same.
    """

    def __init__(self) -> None:
        self._kernels: HalfKernels | None = None

    def _kernels_for(self, values: Any) -> HalfKernels | None:
        """Return the kernels for arrays in a GPU's memory, None for those of the host's."""
        if self._kernels is None and not isinstance(values, np.ndarray):
            self._kernels = HalfKernels(load_cupy(), self.dtype)
        return self._kernels


class Bfloat16Wire(HalfWire):
    """Round to bfloat16: the range of float32, 8 bits of precision.

    The sum of all ranks' values v_r is off by at most 2⁻⁷·Σ|v_r|: each is rounded once, by up to 2⁻⁸ of it, and
    the sum once more.
    """

    dtype = BFLOAT16

    def compress(self, bucket: int, values: Array, wire: Array) -> None:
        kernels = self._kernels_for(values)
        if kernels:
            kernels.compress(values, wire, 1)
        else:
            wire[...] = values

    def decompress(self, bucket: int, wire: Array, values: Array) -> None:
        kernels = self._kernels_for(values)
        if kernels:
            kernels.decompress(wire, values, 1)
        else:
            values[...] = wire


class Float16Wire(HalfWire):
    """Round the shares of the mean, v / N, to float16: 11 bits of precision, at most 65,504.

    The sum of all ranks' values v_r is off by at most 2⁻¹⁰·Σ|v_r|, but shares below 6e-5 lose precision, those
    below 3e-8 vanish, and one above 65,504 becomes infinite.
    """

    dtype = np.dtype(np.float16)

    def __init__(self, world_size: int) -> None:
        super().__init__()
        self._world_size = world_size

    def compress(self, bucket: int, values: Array, wire: Array) -> None:
        kernels = self._kernels_for(values)
        if kernels:
            kernels.compress(values, wire, 1 / self._world_size)
            return
        with np.errstate(over="ignore"):  # infinite is what the docstring says; the next loss tells
            np.multiply(values, np.float32(1 / self._world_size), out=wire, casting="same_kind")

    def decompress(self, bucket: int, wire: Array, values: Array) -> None:
        kernels = self._kernels_for(values)
        if kernels:
            kernels.decompress(wire, values, self._world_size)
        else:
            np.multiply(wire, np.float32(self._world_size), out=values)
