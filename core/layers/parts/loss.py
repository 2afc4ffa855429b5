"""What loss layers share: a scalar top whose diff is the loss weight, and what a loss is divided by.

The net adds up its losses from these tops and starts backward at them. Follows caffe's loss_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Arity, Layer
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.core.tensor import HOST, Memory
from dtrain.proto import caffe_pb2

Mode = caffe_pb2.LossParameter.NormalizationMode
_MODES = caffe_pb2.LossParameter
_DIVISORS: dict[Mode, Callable[[int, int, Any], Any]] = {
    _MODES.FULL: lambda num_outer, num_inner, num_valid: num_outer * num_inner,
    _MODES.VALID: lambda num_outer, num_inner, num_valid: num_valid,
    _MODES.BATCH_SIZE: lambda num_outer, num_inner, num_valid: num_outer,
    _MODES.NONE: lambda num_outer, num_inner, num_valid: 1,
}


class LossLayer(Layer):
    """Bottoms: predictions and what they should be, of as many items. Top 0: the loss, a scalar."""

    bottoms = Arity(2, 2)
    is_loss = True

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the top a scalar. Raises UserError if the bottoms' first axes differ, or if there is none."""
        if not bottom[0].shape:
            raise UserError(f"{name_bottom(self, 0)} must have an axis of items, got a scalar")
        if bottom[0].shape[:1] != bottom[1].shape[:1]:
            raise UserError(
                f"the bottoms must have as many items, got {bottom[0].shape} from {name_bottom(self, 0)} "
                f"and {bottom[1].shape} from {name_bottom(self, 1)}"
            )
        top[0].reshape()

    def num_items(self, bottom: Sequence[Blob]) -> int:
        """Return by how many items a sum is divided: those of bottom 0, or 1 for an empty batch, which costs 0."""
        return max(1, bottom[0].shape[0])

    def write_loss(self, top: Sequence[Blob], value: object) -> None:
        """Write the loss, a scalar of the engine's array module, into top 0."""
        top[0].write_data(self.memory)[...] = value


def loss_weight(top: Sequence[Blob], memory: Memory = HOST) -> Any:
    """Return the weight of a loss in the sum that is minimised: the diff of its top.

    It is a number, or an array without axes where `memory` alone has it.
    """
    valid = top[0].diff_tensor.storage.valid
    if memory in valid and HOST not in valid:
        return top[0].read_diff(memory)
    return float(top[0].read_diff())


def normalization_of(param: caffe_pb2.LossParameter, default: Mode) -> Mode:
    """Return the normalization mode that `param` asks for.

    The old `normalize` (true: VALID, false: BATCH_SIZE) counts only without `normalization`.
    """
    if param.HasField("normalization"):
        return param.normalization
    if param.HasField("normalize"):
        return caffe_pb2.LossParameter.VALID if param.normalize else caffe_pb2.LossParameter.BATCH_SIZE
    return default


def normalizer(mode: Mode, num_outer: int, num_inner: int, num_valid: Any) -> Any:
    """Return what a sum of losses is divided by, at least 1.

    FULL: all num_outer·num_inner places; VALID: those not ignored; BATCH_SIZE: num_outer; NONE: 1. An array without
    axes if it is num_valid, and that is one.
    """
    divisor = _DIVISORS[mode](num_outer, num_inner, num_valid)
    return max(1.0, divisor) if isinstance(divisor, int) else divisor.clip(1, None)
