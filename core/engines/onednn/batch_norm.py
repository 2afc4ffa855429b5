"""oneDNN's batch normalisation (without learned scale and shift, as Caffe's)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.operations import BatchNormSpec
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_GIVEN_STATISTICS = 1
_NUM_AXES = range(2, 6)


class BatchNorm(ByLayout["_Primitives"]):
    """Carry out a BatchNormSpec. The gradient needs x again, so where y is x itself a copy is kept."""

    def __init__(self, spec: BatchNormSpec, engine: OneDnnEngine) -> None:
        super().__init__(engine, spec.x_shape)
        if len(spec.x_shape) not in _NUM_AXES:
            raise NotOffered(f"of {len(spec.x_shape)} axes")
        self.spec = spec
        self._last = self.made_for(HOST)
        self._mean, self._variance = (np.zeros(spec.x_shape[1], np.float32) for _ in range(2))
        self._kept: Any = None

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self._last = made = self.for_data(x)
        x_data = x.read_data(made.memory)
        if not self.spec.batch_statistics:
            self._mean[...], self._variance[...] = mean.read_data(), variance.read_data()
        if y is x:
            x_data = self._keep(x_data)
        made.forward.run(x_data, self._mean, self._variance, y.write_data(made.memory))
        if self.spec.batch_statistics:
            mean.write_data()[...], variance.write_data()[...] = self._mean, self._variance

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff, through the statistics with batch_statistics."""
        made = self._last
        x_data = self._kept if y is x else x.read_data(made.memory)
        y_diff = y.read_diff(made.memory)
        made.backward.run(x_data, self._mean, self._variance, y_diff, x.write_diff(made.memory))

    def make(self, memory: Memory) -> _Primitives:
        """Return forward and backward for one layout."""
        return _Primitives(self, memory)

    def _keep(self, values: Any) -> Any:
        if self._kept is None or self._kept.shape != values.shape:
            self._kept = np.empty_like(values)
        self._kept[...] = values
        return self._kept


class _Primitives:
    def __init__(self, owner: BatchNorm, memory: Memory) -> None:
        spec, binding = owner.spec, owner.binding
        self.memory = memory
        values = owner.layouts.descriptor(memory, spec.x_shape)
        per_channel = owner.layouts.plain((spec.x_shape[1],))
        numbers = (float(spec.eps), 0 if spec.batch_statistics else _GIVEN_STATISTICS)
        kind = "batch_normalization"
        what = binding.describe(f"{kind}_forward", dnn.FORWARD, values, values, *numbers)
        gradient = binding.describe(
            f"{kind}_backward", dnn.BACKWARD_DATA, values, values, values, *numbers, what
        )
        operands = {dnn.SRC: values, dnn.MEAN: per_channel, dnn.VARIANCE: per_channel}
        self.forward = dnn.Primitive(binding, what, {**operands, dnn.DST: values})
        self.backward = dnn.Primitive(
            binding, gradient, {**operands, dnn.DIFF_DST: values, dnn.DIFF_SRC: values}
        )
