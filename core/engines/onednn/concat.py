"""oneDNN's concatenation, in the layout of what is concatenated where its blocks allow that."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.layouts import make_reorder
from dtrain.core.engines.operations import ConcatSpec, ManyToOneOperation
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine


class Concat:
    """Carry out a ConcatSpec. Gradients are copied out of y's, each into the layout of its data."""

    def __init__(self, spec: ConcatSpec, engine: OneDnnEngine) -> None:
        self.layouts = engine.layouts
        self.binding = engine.binding
        self.spec = spec
        lengths = [shape[spec.axis] for shape in spec.x_shapes]
        before, after = spec.x_shapes[0][: spec.axis], spec.x_shapes[0][spec.axis + 1 :]
        self.y_shape = (*before, sum(lengths), *after)
        starts = accumulate(lengths[:-1], initial=0)
        self.starts = [(*[0] * len(before), start, *[0] * len(after)) for start in starts]
        self.on_host: ManyToOneOperation = engine.fallback.create(spec)
        self._made: dict[tuple[Memory, ...], tuple[dnn.Primitive, Memory] | None] = {}
        self._copies: dict[tuple[int, Memory, Memory], dnn.Primitive] = {}

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        memories = self._memories(xs)
        if memories not in self._made:
            self._made[memories] = self._make(memories)
        made = self._made[memories]
        if made is None:
            self.on_host.forward(xs, y)
            return
        join, y_memory = made
        parts = [x.read_data(memory) for x, memory in zip(xs, memories, strict=True)]
        join.run(*parts, y.write_data(y_memory))

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute the diff of each wanted x."""
        y_memory = self.layouts.of(y.diff_tensor, self.y_shape)
        try:
            copies = [self._copy(i, y_memory, memory) for i, memory in enumerate(self._memories(xs))]
        except NotOffered:
            self.on_host.backward(xs, y, wanted)
            return
        y_diff = y.read_diff(y_memory)
        for x, memory, copy, is_wanted in zip(xs, self._memories(xs), copies, wanted, strict=True):
            if is_wanted:
                copy.run(y_diff, x.write_diff(memory))

    def _memories(self, xs: Sequence[Blob]) -> tuple[Memory, ...]:
        shapes = self.spec.x_shapes
        return tuple(self.layouts.of(x.data_tensor, shape) for x, shape in zip(xs, shapes, strict=True))

    def _make(self, memories: tuple[Memory, ...]) -> tuple[dnn.Primitive, Memory] | None:
        """Return the concatenation and where it leaves y; None where plain copies on the host are as good, and where
        some are bf16 and others not.
        """
        if all(memory is HOST for memory in memories) or len({memory.rounds for memory in memories}) > 1:
            return None
        parts = [
            self.layouts.descriptor(memory, shape)
            for memory, shape in zip(memories, self.spec.x_shapes, strict=True)
        ]
        try:
            array = dnn.descriptor_array(parts)
            what = self.binding.describe("concat", None, len(parts), self.spec.axis, array)
        except NotOffered:
            return None
        y = what.layout(dnn.DST)
        operands = {dnn.MULTIPLE_SRC + i: part for i, part in enumerate(parts)}
        return dnn.Primitive(self.binding, what, operands | {dnn.DST: y}), self.layouts.memory(
            y, self.y_shape
        )

    def _copy(self, index: int, y_memory: Memory, x_memory: Memory) -> dnn.Primitive:
        """Return the copy of part `index` out of y. Raises NotOffered where y's blocks can't be cut there."""
        key = index, y_memory, x_memory
        if key not in self._copies:
            shape = self.spec.x_shapes[index]
            whole = self.layouts.descriptor(y_memory, self.y_shape)
            part = self.binding.part(whole, shape, self.starts[index])
            self._copies[key] = make_reorder(self.binding, part, self.layouts.descriptor(x_memory, shape))
        return self._copies[key]
