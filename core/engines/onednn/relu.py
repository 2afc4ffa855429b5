"""ReLU as a part of other operations: done to each result before it is stored, and its gradient from what was stored.

What is done is x·clip(2¹²⁷·x, 0, 1) + 0, the last so that there is no −0: exact but for positive x below 2⁻¹²⁷, which
shrink or vanish. oneDNN's own relu makes NaN 0, and a net that has diverged would go on as if nothing were wrong.
"""

from __future__ import annotations

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.tensor import Memory

_HARD_SWISH = 0x34
VISIBLE_RELU = (("eltwise", _HARD_SWISH, 2.0**127, 0.0), ("eltwise", dnn.LINEAR, 1.0, 0.0))


class ReluGradient(ByLayout["_Gradient"]):
    """dy·(y > 0), in the layout of y."""

    def run(self, y: Blob, target: Blob) -> None:
        """Compute target.diff from the data and the diff of y, which may be `target` itself."""
        made = self.for_data(y)
        y_diff = y.read_diff(made.memory)
        made.primitive.run(y.read_data(made.memory), y_diff, target.write_diff(made.memory))

    def make(self, memory: Memory) -> _Gradient:
        """Return the gradient for one layout."""
        return _Gradient(self, memory)


class _Gradient:
    def __init__(self, owner: ReluGradient, memory: Memory) -> None:
        self.memory = memory
        values = owner.layouts.flat(memory, owner.shape)
        what = owner.binding.describe("eltwise_forward", dnn.FORWARD, dnn.RELU, values, values, 0.0, 0.0)
        gradient = owner.binding.describe(
            "eltwise_backward", dnn.RELU, values, values, values, 0.0, 0.0, what
        )
        operands = dict.fromkeys((dnn.SRC, dnn.DIFF_DST, dnn.DIFF_SRC), values)
        self.primitive = dnn.Primitive(owner.binding, gradient, operands)
