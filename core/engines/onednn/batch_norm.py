"""oneDNN's batch normalisation, as Caffe's without learned scale and shift, or with those of a Scale layer behind and
the ReLU behind that.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.operations import (
    ActivationSpec,
    BatchNormSpec,
    FusedBatchNormSpec,
    UnaryOperation,
    Wanted,
)
from dtrain.core.kept import Kept
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_GIVEN_STATISTICS, _SCALE, _SHIFT, _RELU = 1, 2, 4, 8
_NUM_AXES = range(2, 6)
_BACKWARD = 128  # of data and params


class _Norm(ByLayout["_InLayout"]):
    """What both kinds share. The gradient needs x again, so where y is x itself the values of x are kept.

    params: which arguments of oneDNN's are learned. relu: whether it is at the end.
    """

    def __init__(
        self, spec: BatchNormSpec, engine: OneDnnEngine, params: tuple[int, ...] = (), relu: bool = False
    ) -> None:
        super().__init__(engine, spec.x_shape)
        if len(spec.x_shape) not in _NUM_AXES:
            raise NotOffered(f"of {len(spec.x_shape)} axes")
        self.spec = spec
        self.params = params
        self.relu = relu
        self._last = self.made_for(HOST)
        self._statistics = np.zeros(2 * spec.x_shape[1], np.float32)
        self._mean, self._variance = np.split(self._statistics, 2)
        self._gradients = [np.zeros(spec.x_shape[1], np.float32) for _ in params]
        self._x, self._signs = Kept(), Kept()
        self._eps = float(np.float32(spec.eps))
        self._ran = self._last.plain

    def make(self, memory: Memory) -> _InLayout:
        """Return forward and backward for one layout."""
        return _InLayout(self, memory)

    def run_forward(
        self, x: Blob, y: Blob, mean: Blob, variance: Blob, params: list[Blob], keeps: bool
    ) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self._last = made = self.for_data(x)
        if not self.spec.batch_statistics:
            self._mean[...], self._variance[...] = mean.read_data(), variance.read_data()
        takes_x = y is x and (keeps or made.with_relu is not None)
        x_data = self._x.take(x.data_tensor, made.memory) if takes_x else x.read_data(made.memory)
        learned = [param.read_data() for param in params]
        operands = x_data, self._mean, self._variance, *learned, y.write_data(made.memory)
        if made.with_relu is not None and self._run_with_relu(made.with_relu, y, operands, learned):
            self._ran = made.with_relu
        else:
            self._ran = made.plain
            self._ran.forward.run(*operands)
            if self.relu:
                self._visible_relu.forward(y, y)
        if self.spec.batch_statistics:
            mean.write_data()[...], variance.write_data()[...] = self._mean, self._variance
        if not keeps:
            self.let_go()

    def run_backward(self, x: Blob, y: Blob, params: list[Blob]) -> None:
        """Compute x.diff, through the statistics with batch_statistics, and the gradients of `params`."""
        made = self._last
        signs = [] if self._ran is made.plain else [self._signs.values]
        if self.relu and self._ran is made.plain:
            self._visible_relu.backward(y, y)
        y_diff = y.read_diff(made.memory)
        x_data = self._x.values if y is x else x.read_data(made.memory)
        learned = [scale.read_data() for scale in params[:1]]  # the shift does not count
        x_diff = x.write_diff(made.memory)
        statistics = self._mean, self._variance
        self._ran.backward.run(x_data, *statistics, *learned, y_diff, x_diff, *self._gradients, *signs)
        self.let_go()

    @cached_property
    def _visible_relu(self) -> UnaryOperation:
        found: UnaryOperation = self.engine.create(ActivationSpec(self.spec.x_shape, "relu"))
        return found

    def _run_with_relu(self, code: _Code, y: Blob, operands: tuple[Any, ...], learned: list[Any]) -> bool:
        """Return whether the result is right: oneDNN's relu makes NaN 0, and a net that has diverged would go on as
        if nothing were wrong. A NaN comes from a channel's statistics and params: they have taken in all its values.
        """
        signs = self._signs.room(y.data_tensor.storage, code.num_sign_bytes)
        code.forward.run(*operands, signs)
        # A sum of squares is no number if any value is none. Of values beyond 10¹⁹ it is none either: no harm, and
        # vdot, other than dot, does not warn of it.
        for values in (self._statistics, *learned):
            if not math.isfinite(np.vdot(values, values)):
                return False
        return self._eps > 0 or bool(np.all(self._variance + np.float32(self._eps) > 0))

    def let_go(self) -> None:
        """Forget what forward has kept for backward."""
        self._x.give_back()
        self._signs.give_back()


class BatchNorm(_Norm):
    """Carry out a BatchNormSpec."""

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob, keeps: bool = True) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self.run_forward(x, y, mean, variance, [], keeps)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff, through the statistics with batch_statistics."""
        self.run_backward(x, y, [])


class FusedBatchNorm(_Norm):
    """Carry out a FusedBatchNormSpec."""

    def __init__(self, spec: FusedBatchNormSpec, engine: OneDnnEngine) -> None:
        params = (dnn.SCALE,) * spec.scale + (dnn.SHIFT,) * spec.shift
        super().__init__(spec.norm, engine, params, spec.relu)

    def forward(
        self,
        x: Blob,
        y: Blob,
        mean: Blob,
        variance: Blob,
        scale: Blob | None,
        shift: Blob | None,
        keeps: bool = True,
    ) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self.run_forward(x, y, mean, variance, _given(scale, shift), keeps)

    def backward(self, x: Blob, y: Blob, scale: Blob | None, shift: Blob | None, wanted: Wanted) -> None:
        """Compute x.diff, and add to the wanted ones of scale.diff and shift.diff."""
        params = _given(scale, shift)
        self.run_backward(x, y, params)
        for param, is_wanted, gradient in zip(
            params, (wanted.weight, wanted.bias), self._gradients, strict=False
        ):
            if is_wanted:
                param.add_to_diff(gradient)


class _InLayout:
    """What there is for values in one layout; it is compiled when it runs for the first time.

    with_relu: relu in the same pass, where oneDNN is fast at that; None: it comes behind.
    """

    def __init__(self, owner: _Norm, memory: Memory) -> None:
        self.memory = memory
        self.plain = _Code(owner, memory, 0)
        # With statistics that are given a NaN in x is one in y alone, and relu would hide it.
        is_offered = owner.relu and owner.spec.batch_statistics and self.plain.is_compiled
        with_relu = _Code(owner, memory, _RELU) if is_offered else None
        self.with_relu = with_relu if with_relu is not None and with_relu.is_compiled else None


class _Code:
    """oneDNN's batch normalisation with some flags. is_compiled: its loops are code made for them, not C++."""

    def __init__(self, owner: _Norm, memory: Memory, flags: int) -> None:
        spec, self._binding = owner.spec, owner.binding
        values = owner.layouts.descriptor(memory, spec.x_shape)
        per_channel = owner.layouts.plain((spec.x_shape[1],))
        flags |= 0 if spec.batch_statistics else _GIVEN_STATISTICS
        flags |= sum({dnn.SCALE: _SCALE, dnn.SHIFT: _SHIFT}[param] for param in owner.params)
        kind, numbers = "batch_normalization", (float(spec.eps), flags)
        describe = self._binding.describe
        self._what = describe(f"{kind}_forward", dnn.FORWARD, values, values, *numbers)
        which = _BACKWARD if owner.params else dnn.BACKWARD_DATA
        self._gradient = describe(f"{kind}_backward", which, values, values, values, *numbers, self._what)
        self.is_compiled: bool = "jit" in self._what.implementation()
        signs = self._what.layout(dnn.WORKSPACE)
        self.num_sign_bytes = signs.num_bytes
        kept = {dnn.WORKSPACE: signs} if signs.num_bytes else {}
        given = dict.fromkeys((dnn.MEAN, dnn.VARIANCE, *owner.params), per_channel)
        gradients = {dnn.SCALE: dnn.DIFF_SCALE, dnn.SHIFT: dnn.DIFF_SHIFT}
        self._forward_operands = {dnn.SRC: values, **given, dnn.DST: values, **kept}
        given.pop(dnn.SHIFT, None)
        self._backward_operands = {dnn.SRC: values, **given, dnn.DIFF_DST: values, dnn.DIFF_SRC: values}
        self._backward_operands |= {gradients[param]: per_channel for param in owner.params}
        self._backward_operands |= kept

    @cached_property
    def forward(self) -> dnn.Primitive:
        return dnn.Primitive(self._binding, self._what, self._forward_operands)

    @cached_property
    def backward(self) -> dnn.Primitive:
        return dnn.Primitive(self._binding, self._gradient, self._backward_operands)


def _given(*params: Blob | None) -> list[Blob]:
    return [param for param in params if param is not None]
