"""What all gradients together decide about an update, on a GPU: clipping, and the loss scale of float16.

In the flow net → solver → communicator this stands between all-reduce and update. Nothing comes to the host, so that
it can be captured into a graph with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.engines.cupy.kernels import NUM_THREADS, Kernel

# Places in `control`, as in gradients.cu.
MULTIPLIER, IS_SKIPPED, LOSS_SCALE, NUM_GOOD, NORM, NUM_SKIPPED = range(6)

_MAX_SUMS = 1024  # whatever the GPU, so that the order of additions is the same on every one


class GradientControl:
    """Finds the norm of the gradients, and what they are to be multiplied by because of it.

    control: float32 (6,) on the device: by what the update multiplies diffs (clipping, and 1 / loss scale), whether
    it is left out (not 0), the loss scale, by which the gradient of the loss must be multiplied, how many gradients
    in a row were finite, the norm, of the means and without the loss scale, and how many updates were left out.
    non_finite: float32 (1,) on the device: if not 0, nothing here changes, since the loss itself is not finite,
    whatever the loss scale is: it does not multiply the loss, only its gradient.

    Arguments:
        cupy: the module. clip: the norm's limit, below 0: none.
        loss_scale: to begin with, a power of two. growth_interval: double it after so many finite gradients in a row,
            halve it and leave the update out when one is not finite; 0: it stays, and so does the update.
    """

    def __init__(
        self,
        cupy: Any,
        clip: float = -1.0,
        loss_scale: float = 1.0,
        growth_interval: int = 0,
    ) -> None:
        self._limits = np.float64(clip), np.int32(growth_interval)
        self._square_sums = Kernel(cupy, "square_sums", "gradients")
        self._settle = Kernel(cupy, "settle", "gradients")
        self._sums = cupy.zeros(_MAX_SUMS, np.float64)
        self.control = cupy.zeros(6, np.float32)
        self.non_finite = cupy.zeros(1, np.float32)
        self.take_up(loss_scale)

    @property
    def loss_scale(self) -> Any:
        """The loss scale, float32 (1,) on the device."""
        return self.control[LOSS_SCALE : LOSS_SCALE + 1]

    def take_up(self, loss_scale: float, num_good: int = 0, num_skipped: int = 0) -> None:
        """Go on from a loss scale, after so many finite gradients in a row and so many updates left out."""
        start = np.zeros(6, np.float32)
        start[MULTIPLIER], start[LOSS_SCALE] = 1 / loss_scale, loss_scale
        start[NUM_GOOD], start[NUM_SKIPPED] = num_good, num_skipped
        self.control.set(start)

    def run(self, diff: Any, scale: float = 1.0) -> None:
        """Write `control` for the update of all of `diff`, float32 (n,) on the device, n a multiple of 4.

        scale: by which sums over ranks become means.
        """
        count = diff.size // 4
        num_sums = max(1, min(-(-count // NUM_THREADS), _MAX_SUMS))
        self._square_sums.launch((num_sums,), (NUM_THREADS,), diff, np.int64(count), self._sums)
        self._settle.launch(
            *((1,), (NUM_THREADS,), self._sums, np.int32(num_sums), np.float64(scale)),
            *(*self._limits, self.non_finite, self.control),
        )
