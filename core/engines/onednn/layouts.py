"""Layouts as memories of tensors: plain host arrays, and whatever oneDNN likes better, with reorders between them.

Values in a layout may be bf16, and then are rounded when they are brought there, to nearest even.

A blob's values stay in the layout in which a primitive wrote them; the next primitive either takes that one or asks
for its own, and then the tensor reorders once (core/tensor.py). A layout that is plain is no memory of its own but
HOST.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.core.engines.onednn.binding import (
    BF16,
    DST,
    FLOAT32,
    NUM_BYTES,
    SRC,
    Binding,
    Descriptor,
    Primitive,
    Shape,
    make_array,
    row_major,
)
from dtrain.core.tensor import HOST, Borrow, Memory, Tensor


class Layout(Memory):
    """Values of one shape in one layout of oneDNN's; arrays are flat, as many bytes as the layout with its padding.

    shape: what oneDNN sees, which may be another than the blob's. number: its place in the order of creation. plain:
    how the same values lie in a host array, in float32. rounds: they are bf16.
    """

    name = "onednn"

    def __init__(
        self, layouts: Layouts, shape: Shape, descriptor: Descriptor, plain: Descriptor, number: int
    ) -> None:
        self.layouts = layouts
        self.shape = shape
        self.descriptor = descriptor
        self.plain = plain
        self.number = number
        self.rounds = descriptor.type == BF16
        self._reorders: dict[tuple[Descriptor, Descriptor], Primitive] = {}

    def allocate(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return zeros."""
        assert np.dtype(dtype) == np.float32, (
            f"engine onednn keeps float32 and bf16 in its layouts, got {dtype}"
        )
        return make_array(self.descriptor.num_bytes)

    def borrow(self, borrow: Borrow, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array as long as the layout."""
        return borrow(-(-self.descriptor.num_bytes // 4) * 4, np.float32)

    def view(self, storage: NDArray[Any], shape: Shape) -> NDArray[Any]:
        """Return the storage: in a layout of its own an array has no axes."""
        return storage

    def from_host(self, host: NDArray[Any], storage: NDArray[Any]) -> None:
        """Reorder from row-major order."""
        self._reorder(self.plain, host, self.descriptor, storage)

    def to_host(self, storage: NDArray[Any], host: NDArray[Any]) -> None:
        """Reorder to row-major order."""
        self._reorder(self.descriptor, storage, self.plain, host)

    def take(self, source: Memory, values: Any, storage: NDArray[Any]) -> bool:
        """Reorder from another layout of the same shape at one go."""
        if not isinstance(source, Layout) or source.plain is not self.plain:
            return False
        self._reorder(source.descriptor, values, self.descriptor, storage)
        return True

    def _reorder(
        self, source: Descriptor, values: NDArray[Any], target: Descriptor, storage: NDArray[Any]
    ) -> None:
        with self.layouts.lock:
            key = source, target
            if key not in self._reorders:
                self._reorders[key] = make_reorder(self.layouts.binding, source, target)
            self._reorders[key].run(values, storage)


class Layouts:
    """The layouts in use by an engine, each once, so that they can be compared by identity.

    One that no operation and no tensor has any more is forgotten: the shapes of a net may change with every batch.
    lock: held by whoever reorders or looks layouts up, since ranks of a test are threads and may share an engine.
    """

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.lock = threading.RLock()
        self._plain: WeakValueDictionary[tuple[Shape, Shape], Descriptor] = WeakValueDictionary()
        self._known: WeakValueDictionary[int, Layout] = WeakValueDictionary()
        self._numbers = itertools.count()

    def plain(self, shape: Shape, strides: Shape = ()) -> Descriptor:
        """Return the one descriptor of host arrays of `shape` (in steps of `strides` values)."""
        with self.lock:
            found = self._plain.get((shape, strides))
            if found is None:
                found = self._plain[shape, strides] = self.binding.plain(shape, strides)
            return found

    def channels_last(self, shape: Shape, of: int = FLOAT32) -> Descriptor:
        """Return the descriptor of values of `shape` (N, C, …) with channels next to each other."""
        last = row_major((shape[0], *shape[2:], shape[1]))
        return self.binding.plain(shape, (last[0], last[-1], *last[1:-1]), of)

    def memory(self, descriptor: Descriptor, shape: Shape, strides: Shape = ()) -> Memory:
        """Return the memory for values laid out as `descriptor` says, which are plain(shape, strides) on the host."""
        with self.lock:
            plain = self.plain(shape, strides)
            if descriptor.equals(plain):
                return HOST
            for layout in self._known.values():
                if layout.plain is plain and layout.descriptor.equals(descriptor):
                    return layout
            layout = Layout(self, shape, descriptor, plain, next(self._numbers))
            self._known[layout.number] = layout
            return layout

    def of(self, tensor: Tensor, shape: Shape) -> Memory:
        """Return where the values of `tensor` lie that is seen as of `shape`: HOST unless a layout has them.

        Of several layouts that have them it is one that has not rounded them, if there is one.
        """
        storage = tensor.storage
        if len(storage.valid) == 1 and not storage.is_shown:  # nearly always: nothing to choose from
            (memory,) = storage.valid
            if memory is HOST:  # isinstance of what is no Layout is slow
                return HOST
            return memory if isinstance(memory, Layout) and memory.shape == shape else HOST
        found = [
            memory
            for memory in storage.valid
            if isinstance(memory, Layout) and memory.shape == shape and storage.is_valid(memory)
        ]
        return min(found, key=lambda layout: (layout.rounds, layout.number)) if found else HOST

    def descriptor(self, memory: Memory, shape: Shape) -> Descriptor:
        """Return how values of `shape` lie in `memory`."""
        return memory.descriptor if isinstance(memory, Layout) else self.plain(shape)

    def flat(self, memory: Memory, shape: Shape) -> Descriptor:
        """Return values of `shape` in `memory` as one row, with the zeros that fill up their layout: for operations
        that go value by value and leave a 0 a 0. Rows have fast code where filled-up layouts have none.
        """
        num_bytes = self.descriptor(memory, shape).num_bytes
        values = BF16 if memory.rounds else FLOAT32
        return self.binding.plain((num_bytes // NUM_BYTES[values],), (), values)


def make_reorder(
    binding: Binding, source: Descriptor, target: Descriptor, accumulates: bool = False
) -> Primitive:
    """Return the copy from one layout to another; with `accumulates` it adds to what is there."""
    post_ops = [("sum", 1.0, 0, 0)] if accumulates else []
    what = binding.describe("reorder", source, binding.engine, target, binding.engine, post_ops=post_ops)
    return Primitive(binding, what, {SRC: source, DST: target})
