"""Gradients in 16 bits on a GPU: rounded for their way, widened again, and summed, each in one pass over memory.

In the flow prototxt → graph → net → solver → communicator → snapshot nccl.py sums with these, and the reducer's wire
(wire.py) is theirs where the arena is on a GPU. The results are the host's to the last bit, except that floats below
2⁻¹²⁶ that are added or multiplied count as 0; and no header of CUDA's is needed, as cupy's own casts need one.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np

DeviceArray = Any  # a cupy.ndarray, which mypy cannot see where cupy is not installed

_OPTIONS = ("--fmad=false",)
_NUM_THREADS = 256  # of a block
_MAX_BLOCKS = 4096  # each of which goes through more: as many as keep any GPU busy


class HalfKernels:
    """The kernels of kernels/halves.cu for one dtype, float16 or bfloat16, launched on cupy's current stream.

    All arrays are without gaps. The first launch of each compiles it, and so may not be captured into a graph.
    """

    def __init__(self, cupy: Any, dtype: np.dtype[Any]) -> None:
        is_float16 = dtype == np.float16
        source = read_source()
        macros = (f"-DHALF={'Half' if is_float16 else 'Bfloat16'}", f"-DIS_SCALED={int(is_float16)}")
        self._compress, self._decompress, self._sum = (
            cupy.RawKernel(source, name, (*_OPTIONS, *macros))
            for name in ("compress", "decompress", "sum_parts")
        )

    def compress(self, values: DeviceArray, halves: DeviceArray, scale: float) -> None:
        """Round `values`, (n,) float32, to `halves`, (n,); float16's are multiplied by `scale` first."""
        _launch(self._compress, values.size, values, halves, np.float32(scale))

    def decompress(self, halves: DeviceArray, values: DeviceArray, scale: float) -> None:
        """Widen `halves`, (n,), to `values`, (n,) float32; float16's are multiplied by `scale` then."""
        _launch(self._decompress, values.size, halves, values, np.float32(scale))

    def sum_parts(self, parts: DeviceArray, sums: DeviceArray) -> None:
        """Sum `parts`, (k, n), over k in float32 and in this order; round once to `sums`, (n,)."""
        _launch(self._sum, sums.size, parts, sums, np.int32(len(parts)))


def read_source() -> str:
    """Return the text of kernels/halves.cu with the file that it includes in place."""
    folder = files(__package__) / "kernels"
    text, included = ((folder / name).read_text(encoding="utf-8") for name in ("halves.cu", "values.cuh"))
    return text.replace('#include "values.cuh"\n', included)


def _launch(kernel: Any, size: int, *args: Any) -> None:
    if size:
        blocks = min(-(-size // _NUM_THREADS), _MAX_BLOCKS)
        kernel((blocks,), (_NUM_THREADS,), (*args, np.int64(size)))
