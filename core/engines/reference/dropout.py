"""The reference engine's dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import DropoutSpec


class Dropout:
    """Carry out a DropoutSpec. The mask is drawn on the host, so that every engine drops the same units."""

    def __init__(self, spec: DropoutSpec, engine: Engine) -> None:
        self.spec = spec
        self.xp = engine.xp
        self.memory = engine.memory
        self._factor: Any = None  # mask·scale of the last forward

    def forward(self, x: Blob, y: Blob, random: np.random.Generator) -> None:
        """Draw a mask and compute y = x·mask·scale."""
        x_data = x.read_data(self.memory)
        is_kept = random.random(self.spec.x_shape, dtype=np.float32) >= self.spec.ratio
        self._factor = self.xp.asarray(is_kept * x_data.dtype.type(self.spec.scale))
        self.xp.multiply(x_data, self._factor, out=y.write_data(self.memory))

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute dx = dy·mask·scale."""
        y_diff = y.read_diff(self.memory)
        self.xp.multiply(y_diff, self._factor, out=x.write_diff(self.memory))
