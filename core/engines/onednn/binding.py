"""oneDNN's C API as Python sees it: descriptors of memory and of primitives, and primitives that run on arrays.

Every call is checked; what oneDNN does not offer, or offers in a plain loop only, is `NotOffered`, upon which the net
asks another engine. Numbers are those of dnnl_types.h.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn.library import Library
from dtrain.dist.memory import aligned_zeros

Shape = tuple[int, ...]
Array = NDArray[Any]
Int64 = ctypes.c_int64
PostOps = Sequence[tuple[Any, ...]]  # (name, arguments…) of what is done to each result before it is stored

FLOAT32, BF16 = 3, 2  # the types of values …
NUM_BYTES = {FLOAT32: 4, BF16: 2}  # … and what one takes
FORWARD = 64  # for training: what backward needs is kept
BACKWARD_DATA = 160

# Arguments of primitives
SRC, SRC_1, DST, WEIGHTS, BIAS, MEAN, VARIANCE = 1, 2, 17, 33, 41, 49, 50
SCALE, SHIFT, DIFF_SCALE, DIFF_SHIFT = 51, 52, 255, 256
WORKSPACE, SCRATCHPAD = 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
MULTIPLE_SRC = 1024
POST_OP_0_SRC_1, POST_OP_1_SRC_1 = 32768 | SRC_1, 32768 * 2 | SRC_1  # second operands of post-operations 0, 1

# Algorithms that several operations name.
RELU, LINEAR, ADD = 0x20, 0x26, 0x1FFF0

_IN_ANY_LAYOUT = 1
_BLOCKED_BY_16 = 78  # the tag of channels in blocks of 16, for 4 axes
_CPU = 1
_IN_ORDER = 1
_UNIMPLEMENTED = 3
_IMPLEMENTATION_NAME = 8
_TYPE_OF_VALUES = 258
_ANY_ARGUMENT = 255
_USERS_SCRATCHPAD = 1
_MAX_AXES = 12
_MATRIX = (ctypes.c_void_p, Int64)  # and the values from row to row
_FACTOR = ctypes.c_float
_SGEMM: tuple[Any, ...] = (*[ctypes.c_char] * 2, *[Int64] * 3, _FACTOR, *_MATRIX, *_MATRIX, _FACTOR, *_MATRIX)
_MOST_LOCATED = 1 << 14  # arrays; more come of shapes that change all the time


class _Argument(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("memory", ctypes.c_void_p))


class Descriptor:
    """A shape and a layout of values (sometimes of a primitive's own bytes).

    num_bytes: of the memory that they take, with what the layout pads. type: FLOAT32 or BF16, of values. owner: what
    `handle` belongs to and goes with.
    """

    def __init__(
        self, binding: Binding, handle: ctypes.c_void_p, owner: PrimitiveDescriptor | None = None
    ) -> None:
        self.handle = handle
        self.owner = owner
        self.num_bytes = int(binding.functions.dnnl_memory_desc_get_size(handle))
        found = ctypes.c_int()
        binding.functions.dnnl_memory_desc_query(handle, _TYPE_OF_VALUES, ctypes.byref(found))
        self.type = found.value
        self._equal = binding.functions.dnnl_memory_desc_equal
        if owner is None:
            _destroy_with(self, binding.functions.dnnl_memory_desc_destroy, handle)

    def equals(self, other: Descriptor) -> bool:
        """Return whether shape and layout are the same."""
        return bool(self._equal(self.handle, other.handle))


class PrimitiveDescriptor:
    """A primitive as oneDNN would carry it out, with the layouts that it has chosen."""

    def __init__(self, binding: Binding, handle: ctypes.c_void_p) -> None:
        self.handle = handle
        self._binding = binding
        _destroy_with(self, binding.functions.dnnl_primitive_desc_destroy, handle)

    def implementation(self) -> str:
        """Return the name of the code that is chosen, such as brgconv:avx512_core."""
        name = ctypes.c_char_p()
        self._binding.call("primitive_desc_query", self, _IMPLEMENTATION_NAME, 0, ctypes.byref(name))
        return (name.value or b"").decode()

    def go_on(self) -> bool:
        """Choose oneDNN's next code for it, and return whether there is any; layouts of before are void then."""
        return not self._binding.functions.dnnl_primitive_desc_next_impl(self.handle)

    def layout(self, argument: int) -> Descriptor:
        """Return what memory an argument must be; one of no bytes for what there is not."""
        query = self._binding.functions.dnnl_primitive_desc_query_md
        return Descriptor(self._binding, ctypes.c_void_p(query(self.handle, _ANY_ARGUMENT, argument)), self)


class Slot:
    """The place of one argument of a primitive, an array of a given layout."""

    __slots__ = ("__weakref__", "_num_bytes", "_set", "handle")

    def __init__(self, binding: Binding, descriptor: Descriptor) -> None:
        self.handle = ctypes.c_void_p()
        self._num_bytes = descriptor.num_bytes
        self._set = binding.functions.dnnl_memory_set_data_handle
        binding.call("memory_create", ctypes.byref(self.handle), descriptor, binding.engine, None)
        _destroy_with(self, binding.functions.dnnl_memory_destroy, self.handle)

    def put(self, array: Array, address: int) -> None:
        """Let the argument be in `array`, which has the slot's layout and starts at `address`."""
        assert array.nbytes >= self._num_bytes, "an array does not hold what its layout takes"
        self._set(self.handle, address)


class Primitive:
    """Code that oneDNN has compiled for one operation on arrays of given layouts."""

    def __init__(
        self, binding: Binding, what: PrimitiveDescriptor, layouts: Mapping[int, Descriptor]
    ) -> None:
        self._binding = binding
        self._slots = [Slot(binding, descriptor) for descriptor in layouts.values()]
        kinds = list(layouts)
        scratchpad = what.layout(SCRATCHPAD)
        self._num_scratchpad_bytes = scratchpad.num_bytes
        if self._num_scratchpad_bytes:
            kinds.append(SCRATCHPAD)
            self._slots.append(Slot(binding, scratchpad))
        pairs = zip(kinds, self._slots, strict=True)
        arguments = [_Argument(kind, slot.handle.value) for kind, slot in pairs]
        # Each returns what is in a slot; None if there is nothing or nobody has it any more: its memory is not kept.
        self._placed: list[Callable[[], Array | None]] = [_no_array] * len(self._slots)
        handle = ctypes.c_void_p()
        binding.call("primitive_create", ctypes.byref(handle), what)
        _destroy_with(self, binding.functions.dnnl_primitive_destroy, handle)
        # As ctypes takes them fastest, made once
        count = ctypes.c_int(len(arguments))
        self._call = handle, binding.stream, count, (_Argument * len(arguments))(*arguments)

    def run(self, *arrays: Array) -> None:
        """Carry it out on the arrays, in the order of the layouts that it was made of."""
        binding = self._binding
        if self._num_scratchpad_bytes:
            arrays = (*arrays, binding.scratchpad(self._num_scratchpad_bytes))
        for placed, array in zip(self._placed, arrays, strict=True):
            if placed() is not array:
                self._place(arrays)
                break
        status = binding.execute(*self._call)
        if status:
            binding.check(status, "execute")

    def _place(self, arrays: Sequence[Array]) -> None:
        """Put those of `arrays` into their slots that are not there."""
        for k, (slot, array) in enumerate(zip(self._slots, arrays, strict=True)):
            if self._placed[k]() is not array:
                reference, address = self._binding.locate(array)
                slot.put(array, address)
                self._placed[k] = reference


class Binding:
    """oneDNN on this process's CPU: one engine and one stream, and what is asked of them.

    Memory that primitives need while they run is lent to them, one piece per thread for all of them.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.functions = functions = library.functions
        functions.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        functions.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
        functions.dnnl_memory_set_data_handle.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        self.execute = functions.dnnl_primitive_execute
        self.execute.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        functions.dnnl_sgemm.argtypes = _SGEMM
        self.engine, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("engine_create", ctypes.byref(self.engine), _CPU, ctypes.c_size_t(0))
        self.call("stream_create", ctypes.byref(self.stream), self.engine, _IN_ORDER)
        self._lent = threading.local()
        self._located: dict[int, tuple[Callable[[], Array | None], int]] = {}

    def call(self, name: str, *arguments: Any) -> None:
        """Call dnnl_`name` on ints, floats, shapes (whose length the callee knows), descriptors and pointers."""
        self.check(getattr(self.functions, f"dnnl_{name}")(*map(_to_c, arguments)), name)

    def check(self, status: int, name: str) -> None:
        """Raise NotOffered if oneDNN has no code for what was asked, RuntimeError for any other failure."""
        if status == _UNIMPLEMENTED:
            raise NotOffered
        if status:
            raise RuntimeError(f"oneDNN's {name} must succeed, got status {status}")

    def plain(self, shape: Shape, strides: Shape = (), of: int = FLOAT32) -> Descriptor:
        """Return the descriptor of values in row-major order, or with steps of `strides` values along each axis.

        of: their type, FLOAT32 or BF16.
        """
        strides = strides or row_major(shape)
        handle = ctypes.c_void_p()
        self.call("memory_desc_create_with_strides", ctypes.byref(handle), len(shape), shape, of, strides)
        return Descriptor(self, handle)

    def any_layout(self, shape: Shape, of: int = FLOAT32) -> Descriptor:
        """Return a descriptor that leaves the layout to the primitive."""
        return self._tagged(shape, of, _IN_ANY_LAYOUT)

    def blocked(self, shape: Shape, of: int = FLOAT32) -> Descriptor:
        """Return the descriptor of values of `shape` (N, C, H, W) with channels in blocks of 16."""
        return self._tagged(shape, of, _BLOCKED_BY_16)

    def _tagged(self, shape: Shape, of: int, tag: int) -> Descriptor:
        handle = ctypes.c_void_p()
        self.call("memory_desc_create_with_tag", ctypes.byref(handle), len(shape), shape, of, tag)
        return Descriptor(self, handle)

    def part(self, whole: Descriptor, shape: Shape, start: Shape) -> Descriptor:
        """Return the descriptor of a block within `whole`. Raises NotOffered where its layout can't be cut so."""
        handle = ctypes.c_void_p()
        status = self.functions.dnnl_memory_desc_create_submemory(
            ctypes.byref(handle), whole.handle, _to_c(shape), _to_c(start)
        )
        if status:
            raise NotOffered
        return Descriptor(self, handle)

    def describe(self, kind: str, *arguments: Any, post_ops: PostOps = ()) -> PrimitiveDescriptor:
        """Return the descriptor of a primitive: dnnl_`kind`_primitive_desc_create's, from what follows the engine.

        Raises NotOffered where oneDNN has no code, or its plain loops only.
        """
        handle = ctypes.c_void_p()
        attributes = self._attributes(post_ops)
        first = [] if kind == "reorder" else [self.engine]
        try:
            self.call(f"{kind}_primitive_desc_create", ctypes.byref(handle), *first, *arguments, attributes)
        finally:
            self.call("primitive_attr_destroy", attributes)
        found = PrimitiveDescriptor(self, handle)
        if found.implementation().startswith("ref"):
            raise NotOffered
        return found

    def locate(self, array: Array) -> tuple[Callable[[], Array | None], int]:
        """Return a weak reference to an array, and its address, which numpy takes long to say: one layer's array goes
        where another layer's was in each iteration, where a primitive reorders for several.
        """
        found = self._located.get(id(array))
        if found is None or found[0]() is not array:
            if len(self._located) >= _MOST_LOCATED:
                self._located.clear()
            found = self._located[id(array)] = weakref.ref(array), array.ctypes.data
        return found

    def scratchpad(self, num_bytes: int) -> Array:
        """Return this thread's piece of memory for what runs now, of at least so many bytes."""
        array: Array | None = getattr(self._lent, "array", None)
        if array is None or array.nbytes < num_bytes:
            array = self._lent.array = make_array(num_bytes)
        return array

    def _attributes(self, post_ops: PostOps) -> ctypes.c_void_p:
        attributes, chain = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("primitive_attr_create", ctypes.byref(attributes))
        self.call("primitive_attr_set_scratchpad_mode", attributes, _USERS_SCRATCHPAD)
        self.call("post_ops_create", ctypes.byref(chain))
        for name, *arguments in post_ops:
            self.call(f"post_ops_append_{name}", chain, *arguments)
        self.call("primitive_attr_set_post_ops", attributes, chain)
        self.call("post_ops_destroy", chain)
        return attributes


def _destroy_with(owner: object, destroy: Any, handle: ctypes.c_void_p) -> None:
    weakref.finalize(owner, destroy, handle).atexit = False  # the process's end needs no tidying


def _no_array() -> None:
    return None


def row_major(shape: Shape) -> Shape:
    """Return the strides of values in row-major order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def make_array(num_bytes: int) -> Array:
    """Return zeros that start on a cache line, in at least so many bytes."""
    return aligned_zeros(-(-num_bytes // 4), np.float32)


def descriptor_array(descriptors: Sequence[Descriptor]) -> Any:
    """Return what a primitive of several inputs takes their descriptors as."""
    return (ctypes.c_void_p * len(descriptors))(*(descriptor.handle.value for descriptor in descriptors))


def float_array(values: Sequence[float]) -> Any:
    """Return numbers as an array of C floats."""
    return (ctypes.c_float * len(values))(*values)


def _to_c(value: Any) -> Any:
    if isinstance(value, Descriptor | PrimitiveDescriptor):
        return value.handle
    if isinstance(value, float):
        return ctypes.c_float(value)
    if isinstance(value, tuple):
        return (Int64 * _MAX_AXES)(*value)
    return value
