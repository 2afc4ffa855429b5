"""What all gradients together decide about an update, on a GPU: clipping, and the loss scale of float16.

In the flow net → solver → communicator this stands between all-reduce and update. Nothing comes to the host, so that
it can be captured into a graph with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.engines.cupy.kernels import NUM_THREADS, Kernel

# Places in `control`, as in gradients.cu.
MULTIPLIER, IS_SKIPPED, LOSS_SCALE, NUM_GOOD, NORM = range(5)

_MAX_SUMS = 1024  # whatever the GPU, so that the order of additions is the same on every one


class GradientControl:
    """Finds the norm of the gradients, and what they are to be multiplied by because of it.

    control: float32 (5,) on the device: by what the update multiplies diffs (clipping, and 1 / loss scale), whether
    it is left out (not 0), the loss scale, by which the gradient of the loss must be multiplied, how many gradients
    in a row were finite, and the norm, of the means and without the loss scale.

    Arguments:
        cupy: the module. scale: by which sums over ranks become means. clip: the norm's limit, below 0: none.
        loss_scale: to begin with, a power of two. growth_interval: double it after so many finite gradients in a row,
            halve it and leave the update out when one is not finite; 0: it stays, and so does the update.
    """

    def __init__(
        self,
        cupy: Any,
        scale: float = 1.0,
        clip: float = -1.0,
        loss_scale: float = 1.0,
        growth_interval: int = 0,
    ) -> None:
        self._limits = np.float64(scale), np.float64(clip), np.int32(growth_interval)
        self._square_sums = Kernel(cupy, "square_sums", "gradients")
        self._settle = Kernel(cupy, "settle", "gradients")
        self._sums = cupy.zeros(_MAX_SUMS, np.float64)
        start = np.zeros(5, np.float32)
        start[MULTIPLIER], start[LOSS_SCALE] = 1 / loss_scale, loss_scale
        self.control = cupy.asarray(start)

    def run(self, diff: Any) -> None:
        """Write `control` for the update of all of `diff`, float32 (n,) on the device, n a multiple of 4."""
        count = diff.size // 4
        num_sums = max(1, min(-(-count // NUM_THREADS), _MAX_SUMS))
        self._square_sums.launch((num_sums,), (NUM_THREADS,), diff, np.int64(count), self._sums)
        self._settle.launch((1,), (NUM_THREADS,), self._sums, np.int32(num_sums), *self._limits, self.control)
