"""oneDNN's batch normalisation, as Caffe's without learned scale and shift, or with those of a Scale layer behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.operations import BatchNormSpec, ScaledBatchNormSpec, Wanted
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_GIVEN_STATISTICS, _SCALE, _SHIFT = 1, 2, 4
_NUM_AXES = range(2, 6)
_BACKWARD = 128  # of data and params


class _Norm(ByLayout["_Primitives"]):
    """What both kinds share. The gradient needs x again, so where y is x itself a copy is kept.

    params: which arguments of oneDNN's are learned.
    """

    def __init__(self, spec: BatchNormSpec, engine: OneDnnEngine, params: tuple[int, ...] = ()) -> None:
        super().__init__(engine, spec.x_shape)
        if len(spec.x_shape) not in _NUM_AXES:
            raise NotOffered(f"of {len(spec.x_shape)} axes")
        self.spec = spec
        self.params = params
        self._last = self.made_for(HOST)
        self._mean, self._variance = (np.zeros(spec.x_shape[1], np.float32) for _ in range(2))
        self._gradients = [np.zeros(spec.x_shape[1], np.float32) for _ in params]
        self._kept: Any = None

    def make(self, memory: Memory) -> _Primitives:
        """Return forward and backward for one layout."""
        return _Primitives(self, memory)

    def run_forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob, *params: Blob) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self._last = made = self.for_data(x)
        x_data = x.read_data(made.memory)
        if not self.spec.batch_statistics:
            self._mean[...], self._variance[...] = mean.read_data(), variance.read_data()
        if y is x:
            x_data = self._keep(x_data)
        learned = [param.read_data() for param in params]
        made.forward.run(x_data, self._mean, self._variance, *learned, y.write_data(made.memory))
        if self.spec.batch_statistics:
            mean.write_data()[...], variance.write_data()[...] = self._mean, self._variance

    def run_backward(self, x: Blob, y: Blob, *params: Blob) -> None:
        """Compute x.diff, through the statistics with batch_statistics, and the gradients of `params`."""
        made = self._last
        x_data = self._kept if y is x else x.read_data(made.memory)
        y_diff = y.read_diff(made.memory)
        learned = [scale.read_data() for scale in params[:1]]  # the shift does not count
        x_diff = x.write_diff(made.memory)
        made.backward.run(x_data, self._mean, self._variance, *learned, y_diff, x_diff, *self._gradients)

    def _keep(self, values: Any) -> Any:
        if self._kept is None or self._kept.shape != values.shape:
            self._kept = np.empty_like(values)
        self._kept[...] = values
        return self._kept


class BatchNorm(_Norm):
    """Carry out a BatchNormSpec."""

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self.run_forward(x, y, mean, variance)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff, through the statistics with batch_statistics."""
        self.run_backward(x, y)


class ScaledBatchNorm(_Norm):
    """Carry out a ScaledBatchNormSpec."""

    def __init__(self, spec: ScaledBatchNormSpec, engine: OneDnnEngine) -> None:
        super().__init__(spec.norm, engine, (dnn.SCALE, dnn.SHIFT) if spec.shift else (dnn.SCALE,))

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob, scale: Blob, shift: Blob | None) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self.run_forward(x, y, mean, variance, *_given(scale, shift))

    def backward(self, x: Blob, y: Blob, scale: Blob, shift: Blob | None, wanted: Wanted) -> None:
        """Compute x.diff, and add to the wanted ones of scale.diff and shift.diff."""
        params = _given(scale, shift)
        self.run_backward(x, y, *params)
        for param, is_wanted, gradient in zip(
            params, (wanted.weight, wanted.bias), self._gradients, strict=False
        ):
            if is_wanted:
                diff = param.update_diff()
                diff += gradient


class _Primitives:
    def __init__(self, owner: _Norm, memory: Memory) -> None:
        spec, binding = owner.spec, owner.binding
        self.memory = memory
        values = owner.layouts.descriptor(memory, spec.x_shape)
        per_channel = owner.layouts.plain((spec.x_shape[1],))
        flags = 0 if spec.batch_statistics else _GIVEN_STATISTICS
        flags |= sum({dnn.SCALE: _SCALE, dnn.SHIFT: _SHIFT}[param] for param in owner.params)
        kind, numbers = "batch_normalization", (float(spec.eps), flags)
        what = binding.describe(f"{kind}_forward", dnn.FORWARD, values, values, *numbers)
        which = _BACKWARD if owner.params else dnn.BACKWARD_DATA
        gradient = binding.describe(f"{kind}_backward", which, values, values, values, *numbers, what)
        operands = {dnn.SRC: values}
        operands |= dict.fromkeys((dnn.MEAN, dnn.VARIANCE, *owner.params), per_channel)
        self.forward = dnn.Primitive(binding, what, {**operands, dnn.DST: values})
        operands |= {dnn.DIFF_DST: values, dnn.DIFF_SRC: values}
        gradients = {dnn.SCALE: dnn.DIFF_SCALE, dnn.SHIFT: dnn.DIFF_SHIFT}
        operands |= {gradients[param]: per_channel for param in owner.params}
        operands.pop(dnn.SHIFT, None)
        self.backward = dnn.Primitive(binding, gradient, operands)


def _given(scale: Blob, shift: Blob | None) -> list[Blob]:
    return [scale] if shift is None else [scale, shift]
