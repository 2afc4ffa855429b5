"""BatchNorm's running sums on a GPU: all three in one launch, where cupy takes seven."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cupy.kernels import C_TYPES, Kernel
from dtrain.core.engines.operations import RunningSumsSpec


class RunningSums:
    """Carry out a RunningSumsSpec."""

    def __init__(self, spec: RunningSumsSpec, engine: Any) -> None:
        self.spec = spec
        self.xp = engine.xp
        self.memory = engine.memory
        self._kernels: dict[str, Kernel] = {}

    def enter(self, mean: Blob, variance: Blob, sums: Sequence[Blob], unbiased: float) -> None:
        """Enter a batch's statistics into the three sums."""
        given = [blob.read_data(self.memory) for blob in (mean, variance)]
        targets = [blob.update_data(self.memory) for blob in sums]
        dtype = given[0].dtype
        if dtype.name not in self._kernels:
            self._kernels[dtype.name] = Kernel(self.xp, "running_sums", VALUE=C_TYPES[dtype.name])
        numbers = np.int32(mean.count), dtype.type(unbiased), dtype.type(self.spec.fraction)
        self._kernels[dtype.name].run(mean.count, *given, *numbers, *targets)
