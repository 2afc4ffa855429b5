"""oneDNN's concatenation, in a layout of what is concatenated where its blocks allow that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.layout_costs import BLOCKED, LAST, PLAIN
from dtrain.core.engines.onednn.layouts import make_reorder
from dtrain.core.engines.operations import ConcatSpec, ManyToOneOperation
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_NUM_AXES = 4  # of blobs that have layouts


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
        self.layout = ""
        self._found: tuple[Memory, ...] = ()
        self._made: dict[tuple[Memory, ...], _Join | None] = {}
        self._copies: dict[tuple[Memory, tuple[Memory, ...]], list[dnn.Primitive] | None] = {}

    def work_in(self, layout: str) -> None:
        """Bring what comes in several layouts into this one of layout_costs.py, as the net's plan says."""
        if layout != self.layout:
            self.layout = layout
            self._made.clear()

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        self._found = found = self._memories(xs)
        if found not in self._made:
            self._made[found] = self._make(found)
        made = self._made[found]
        if made is None:
            self.on_host.forward(xs, y)
            return
        parts = [x.read_data(memory) for x, memory in zip(xs, made.x_memories, strict=True)]
        made.join.run(*parts, y.write_data(made.y_memory))

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute the diff of each wanted x."""
        y_memory = self.layouts.of(y.diff_tensor, self.y_shape)
        key = y_memory, self._found
        if key not in self._copies:
            self._copies[key] = self._make_copies(y_memory)
        copies = self._copies[key]
        if copies is None:
            self.on_host.backward(xs, y, wanted)
            return
        y_diff = y.read_diff(y_memory)
        for x, memory, copy, is_wanted in zip(xs, self._found, copies, wanted, strict=True):
            if is_wanted:
                copy.run(y_diff, x.write_diff(memory))

    def _memories(self, xs: Sequence[Blob]) -> tuple[Memory, ...]:
        of, shapes = self.layouts.of, self.spec.x_shapes
        return tuple([of(x.data_tensor, shape) for x, shape in zip(xs, shapes, strict=True)])

    def _make(self, found: tuple[Memory, ...]) -> _Join | None:
        """Return the concatenation; None where plain copies on the host are as good, and where only some are bf16."""
        if all(memory is HOST for memory in found) or len({memory.rounds for memory in found}) > 1:
            return None
        ways = [self._in_one_layout(found)] if len(self.y_shape) == _NUM_AXES else []
        for memories, y in (*ways, (found, None)):
            try:
                return _Join(self, memories, y)
            except NotOffered:
                continue
        return None

    def _in_one_layout(self, found: tuple[Memory, ...]) -> tuple[tuple[Memory, ...], dnn.Descriptor | None]:
        """Return the memories, and y's layout, of the one that is planned, or else that most values are in.

        What is in one already stays there.
        """
        x_shapes, values = self.spec.x_shapes, dnn.BF16 if found[0].rounds else dnn.FLOAT32
        shapes = (*x_shapes, self.y_shape)
        descriptors = {
            BLOCKED: [self.binding.blocked(shape, values) for shape in shapes],
            LAST: [self.layouts.channels_last(shape, values) for shape in shapes],
            PLAIN: [self.layouts.plain(shape) for shape in shapes],
        }
        memories = {
            layout: tuple(map(self.layouts.memory, those[:-1], x_shapes))
            for layout, those in descriptors.items()
        }
        num_values = {
            layout: sum(
                math.prod(shape)
                for shape, memory, own in zip(x_shapes, found, those, strict=True)
                if memory is own
            )
            for layout, those in memories.items()
        }
        most = max(num_values, key=lambda layout: num_values[layout])
        chosen = most if memories[most] == found else self.layout or most
        return memories[chosen], descriptors[chosen][-1]

    def _make_copies(self, y_memory: Memory) -> list[dnn.Primitive] | None:
        """Return the copy of each part out of y; None where y's blocks can't be cut there."""
        whole = self.layouts.descriptor(y_memory, self.y_shape)
        copies = []
        try:
            for start, shape, memory in zip(self.starts, self.spec.x_shapes, self._found, strict=True):
                part = self.binding.part(whole, shape, start)
                copies.append(make_reorder(self.binding, part, self.layouts.descriptor(memory, shape)))
        except NotOffered:
            return None
        return copies


class _Join:
    """The concatenation of values in some memories, in the layout `y`; None: in what oneDNN likes."""

    def __init__(self, owner: Concat, x_memories: tuple[Memory, ...], y: dnn.Descriptor | None) -> None:
        binding, layouts, spec = owner.binding, owner.layouts, owner.spec
        parts = [
            layouts.descriptor(memory, shape) for memory, shape in zip(x_memories, spec.x_shapes, strict=True)
        ]
        array = dnn.descriptor_array(parts)
        what = binding.describe("concat", y, len(parts), spec.axis, array)
        y = what.layout(dnn.DST)
        operands = {dnn.MULTIPLE_SRC + i: part for i, part in enumerate(parts)}
        self.join = dnn.Primitive(binding, what, operands | {dnn.DST: y})
        self.x_memories = x_memories
        self.y_memory = layouts.memory(y, owner.y_shape)
