"""The loss scale of training in FLOAT16: what gradients are multiplied by on their way through the net.

    loss ──> × scale ──> backward ──> sums over ranks ──> ÷ scale ──> clipping, decay, update rule

Float16 has no numbers between 0 and 6e-8, where many gradients are. So the gradient of the loss is multiplied by a
power of two as large as the gradients let it be: it is doubled after GROWTH_INTERVAL updates by finite gradients,
and halved, with the update left out, when they are not (Micikevicius et al., 2018, "Mixed precision training"). What
is left out counts as an iteration. Every rank sees the same sums, hence has the same scale.

Where updates run on the GPU (gpu_updater.py) the scale is kept there, by core/engines/cupy/gradient_control.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.arrays import assign
from dtrain.core.snapshots.manifest import LossScaleState

GROWTH_INTERVAL = 2000
SMALLEST, LARGEST = 1.0, 2.0**24  # as in gradients.cu


class LossScale:
    """A loss scale that the host looks after.

    array: float32 (1,) of the module `xp`, by which backward is to multiply the gradient of the loss.
    """

    def __init__(self, xp: Any) -> None:
        self.array: Any = xp.zeros(1, np.float32)
        self.state = LossScaleState()

    @property
    def state(self) -> LossScaleState:
        """The scale of the gradients to come, and how it came about; what is assigned is gone on from."""
        return self._state

    @state.setter
    def state(self, state: LossScaleState) -> None:
        self._state = state
        assign(self.array, np.array([state.value], np.float32))

    def settle(self, is_finite: bool) -> bool:
        """Take in whether the gradients of an update are finite, and return it: if not, it must be left out."""
        old = self.state
        if not is_finite:
            self.state = LossScaleState(max(old.value / 2, SMALLEST), 0, old.num_left_out + 1)
        elif old.num_finite + 1 < GROWTH_INTERVAL:
            self._state = LossScaleState(old.value, old.num_finite + 1, old.num_left_out)
        else:
            self.state = LossScaleState(min(old.value * 2, LARGEST), 0, old.num_left_out)
        return is_finite
