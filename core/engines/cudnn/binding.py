"""cuDNN's C API as Python sees it: descriptors that are destroyed with their owners, and calls that are checked.

What cuDNN has no code for is `NotOffered`, upon which another way or engine is asked.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.library import Library
from dtrain.core.engines.engine import NotOffered

Shape = tuple[int, ...]

ONE, ZERO = (
    ctypes.byref(ctypes.c_float(1)),
    ctypes.byref(ctypes.c_float(0)),
)  # factors of results, of what was there

_LEAST_AXES = 4
_MOST_VALUES = 2**31 - 1  # strides are ints
_MESSAGE_BYTES = 1024
_FLOAT32_BYTES = 4


class CudnnError(RuntimeError):
    """A call of cuDNN's has failed that should not."""


class Descriptor:
    """What cuDNN knows of one thing: a tensor, a filter, an operation. Can be handed to cuDNN as it is."""

    def __init__(self, binding: Binding, kind: str, setter: str, *values: Any) -> None:
        self._as_parameter_ = handle = ctypes.c_void_p()
        binding.call(f"Create{kind}Descriptor", ctypes.byref(handle))
        destroy = binding.functions[f"Destroy{kind}Descriptor"]
        weakref.finalize(self, destroy, handle).atexit = False  # the process's end needs no tidying
        binding.call(setter, self, *values)


class _Handles(threading.local):
    """A thread's cuDNN and the stream that it was given last."""

    handle: _Handle | None = None
    stream: int | None = None


class _Handle:
    def __init__(self, binding: Binding) -> None:
        self._as_parameter_ = handle = ctypes.c_void_p()
        binding.call("Create", ctypes.byref(handle))
        weakref.finalize(self, binding.functions["Destroy"], handle).atexit = False


class Binding:
    """cuDNN on the GPU that is the current one when this is made."""

    def __init__(self, library: Library, cupy: Any) -> None:
        self.library = library
        self.functions: dict[str, Any] = dnn.declare(library.functions)
        library.functions.cudnnGetErrorString.restype = ctypes.c_char_p
        library.functions.cudnnGetLastErrorString.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
        library.functions.cudnnGetLastErrorString.restype = None
        self._cuda = cupy.cuda
        self.device = int(cupy.cuda.runtime.getDevice())
        self._mine = _Handles()

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that takes no handle. Raises as `run` does."""
        self.check(self.functions[name](*arguments), name)

    def run(self, name: str, *arguments: Any) -> None:
        """Call cudnn`name` with this thread's handle, on cupy's current stream; arguments: what follows the handle.

        Raises NotOffered where cuDNN has no code for what is asked, CudnnError for any other failure.
        """
        self.check(self.try_to(name, *arguments), name)

    def try_to(self, name: str, *arguments: Any) -> int:
        """Do what `run` does, but return the status."""
        status: int = self.functions[name](self._handle(), *arguments)
        return status

    def check(self, status: int, name: str) -> None:
        """Raise for a status that is not 0."""
        if not status:
            return
        functions, message = self.library.functions, ctypes.create_string_buffer(_MESSAGE_BYTES)
        functions.cudnnGetLastErrorString(message, _MESSAGE_BYTES)
        known = (functions.cudnnGetErrorString(status) or b"").decode()
        text = f"cudnn{name} must succeed, got {known} ({status}): {message.value.decode(errors='replace')}"
        if dnn.NOT_SUPPORTED <= status < dnn.INTERNAL_ERROR:
            raise NotOffered(f"that cudnn{name} supports")
        raise CudnnError(text)

    def tensor(self, shape: Shape, dtype: str, channels_last: bool = False) -> Descriptor:
        """Return the descriptor of values of `shape` (N, C, spatial…), which lie in that order or with C behind.

        Raises NotOffered for no values, and for more than cuDNN can count.
        """
        strides = strides_of(shape, channels_last)
        padding = (1,) * (_LEAST_AXES - len(shape))
        _check_size(shape)
        dims, steps = ints((*shape, *padding)), ints((*strides, *padding))
        return Descriptor(self, "Tensor", "SetTensorNdDescriptor", dnn.NUMBERS[dtype], len(dims), dims, steps)

    def filter(self, shape: Shape, dtype: str, channels_last: bool = False) -> Descriptor:
        """Return the descriptor of a weight (K, C, kernel…)."""
        _check_size(shape)
        layout = dnn.CHANNELS_LAST if channels_last else dnn.ROW_MAJOR
        arguments = dnn.NUMBERS[dtype], layout, len(shape), ints(shape)
        return Descriptor(self, "Filter", "SetFilterNdDescriptor", *arguments)

    def _handle(self) -> _Handle:
        mine = self._mine
        if mine.handle is None:
            with self._cuda.Device(self.device):
                mine.handle = _Handle(self)
        stream = self._cuda.get_current_stream().ptr
        if stream != mine.stream:
            self.call("SetStream", mine.handle, stream)
            mine.stream = stream
        return mine.handle


def address(array: Any) -> int:
    """Return where the values of a device array without gaps lie."""
    assert array.flags.c_contiguous, f"an array of shape {array.shape} has strides {array.strides}"
    assert array.dtype.itemsize <= _FLOAT32_BYTES, f"engine cudnn computes in float32, got {array.dtype}"
    found: int = array.data.ptr
    return found


def ints(values: Sequence[int]) -> ctypes.Array[ctypes.c_int]:
    """Return whole numbers as C has them."""
    return (ctypes.c_int * len(values))(*values)


def strides_of(shape: Shape, channels_last: bool) -> Shape:
    """Return the step along each axis of (N, C, spatial…), in values."""
    order = [0, *range(2, len(shape)), 1] if channels_last else list(range(len(shape)))
    behind = {axis: order[place + 1 :] for place, axis in enumerate(order)}
    return tuple(math.prod(shape[other] for other in behind[axis]) for axis in range(len(shape)))


def _check_size(shape: Shape) -> None:
    if not 0 < math.prod(shape) <= _MOST_VALUES:
        raise NotOffered(f"of {math.prod(shape)} values")
