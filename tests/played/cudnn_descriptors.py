"""The played cuDNN's handles and descriptors, and the memory that these describe (cudnn.py)."""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from tests.played.memory import room_at

DTYPES = {0: np.dtype(np.float32), 2: np.dtype(np.float16), 9: np.dtype(ml_dtypes.bfloat16)}
ALIGNMENT = 16


class Refused(Exception):
    """There is no code for what is asked, or, by its status, it is taken for a mistake."""

    status = 3000


@dataclass
class Thing:
    """A descriptor: its kind, and what it was set to."""

    kind: str
    dtype: np.dtype[Any] | None = None
    dims: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)


class Descriptors:
    """Functions that make, set and destroy what cuDNN works with."""

    def __init__(self, refused_in_halves: tuple[str, ...]) -> None:
        self.calls: Counter[str] = Counter()
        self.refused_in_halves = refused_in_halves
        self.stream: int | None = None
        self.handles: set[int] = set()
        self.things: dict[int, Thing] = {}
        self._numbers = itertools.count(1 << 20)

    def Create(self, target: int) -> None:
        handle = next(self._numbers)
        self.handles.add(handle)
        write_pointer(target, handle)

    def Destroy(self, handle: int) -> None:
        self.handles.remove(handle)

    def SetStream(self, handle: int, stream: int | None) -> None:
        assert handle in self.handles
        self.stream = stream or 0

    def _create(self, kind: str, target: int) -> None:
        number = next(self._numbers)
        self.things[number] = Thing(kind)
        write_pointer(target, number)

    def _destroy(self, kind: str, number: int) -> None:
        assert self.things.pop(number).kind == kind

    def _thing(self, kind: str, number: int) -> Thing:
        assert number in self.things, "a descriptor is destroyed, or none"
        thing = self.things[number]
        assert thing.kind == kind, f"a descriptor of {thing.kind} is no {kind}'s"
        return thing

    def SetTensorNdDescriptor(self, number: int, dtype: int, count: int, dims: int, strides: int) -> None:
        thing = self._thing("Tensor", number)
        assert 4 <= count <= 8
        thing.dtype, thing.dims, thing.strides = (
            DTYPES[dtype],
            read_ints(dims, count),
            read_ints(strides, count),
        )
        assert min(thing.dims) > 0
        assert min(thing.strides) > 0

    def SetFilterNdDescriptor(self, number: int, dtype: int, layout: int, count: int, dims: int) -> None:
        thing = self._thing("Filter", number)
        thing.dtype, thing.dims = DTYPES[dtype], read_ints(dims, count)
        order = {0: [*range(count)], 1: [0, *range(2, count), 1]}[layout]
        strides = [0] * count
        step = 1
        for axis in reversed(order):
            strides[axis] = step
            step *= thing.dims[axis]
        thing.strides = tuple(strides)

    def SetConvolutionNdDescriptor(
        self, number: int, count: int, pad: int, stride: int, dilation: int, mode: int, dtype: int
    ) -> None:
        numbers = self._thing("Convolution", number).numbers
        assert count in (2, 3)
        assert mode == 1, "Caffe's convolution is a cross-correlation"
        assert dtype == 0, "sums must be float32"
        numbers.update(
            pad=read_ints(pad, count), stride=read_ints(stride, count), dilation=read_ints(dilation, count)
        )
        numbers["group"] = 1

    def SetConvolutionGroupCount(self, number: int, count: int) -> None:
        self._thing("Convolution", number).numbers["group"] = count

    def SetConvolutionMathType(self, number: int, math_type: int) -> None:
        assert 0 <= math_type <= 3
        self._thing("Convolution", number).numbers["math"] = math_type

    def SetActivationDescriptor(self, number: int, mode: int, nan: int, ceiling: float) -> None:
        assert mode in (0, 1, 2)
        assert nan == 1, "NaN must stay visible"
        assert ceiling == 0
        self._thing("Activation", number).numbers["mode"] = mode

    def SetLRNDescriptor(self, number: int, n: int, alpha: float, beta: float, k: float) -> None:
        assert 1 <= n <= 16
        assert beta >= 0.01
        assert k >= 1e-5
        self._thing("LRN", number).numbers.update(n=n, alpha=alpha, beta=beta, k=k)

    def _values(self, kind: str, number: int, address: int) -> np.ndarray:
        """Return the memory that a descriptor and an address describe, as an array."""
        thing = self._thing(kind, number)
        assert thing.dtype is not None, "a descriptor is not set"
        last = sum((length - 1) * step for length, step in zip(thing.dims, thing.strides, strict=True))
        size = thing.dtype.itemsize
        buffer = self._bytes(address, (last + 1) * size)
        steps = [step * size for step in thing.strides]
        return np.ndarray(thing.dims, thing.dtype, buffer, strides=steps)

    def _bytes(self, address: int, count: int) -> Any:
        assert address % ALIGNMENT == 0, "an address must be that of whole words"
        assert count <= room_at(address), "an array is too small, or dead"
        return (ctypes.c_char * count).from_address(address)

    def _operands(self, handle: int, *pairs: tuple[int, int], alike: bool = True) -> list[np.ndarray]:
        assert handle in self.handles, "no handle"
        found = [self._values("Tensor", *pair) for pair in pairs]
        assert len({values.dtype for values in found}) == 1, "types of operands must be one"
        assert not alike or len({values.shape for values in found}) == 1, (
            "lengths of operands must be the same"
        )
        return found

    def _refuse_halves(self, name: str, values: np.ndarray) -> None:
        if values.dtype != np.float32 and name in self.refused_in_halves:
            raise Refused(f"{name} in {values.dtype}")


def widened(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


def widened_or_last(values: np.ndarray, place: int) -> np.ndarray:
    return values if place == 3 else widened(values)


def blend(alpha: int, computed: np.ndarray, beta: int, target: np.ndarray) -> None:
    """Write alpha·computed + beta·target, which is not read if beta is 0; factors are floats."""
    new, old = (ctypes.c_float.from_address(factor).value for factor in (alpha, beta))
    assert new == 1, "a factor must be a float of 1"
    assert old in (0, 1)
    assert computed.shape == target.shape
    target[...] = (new * computed + (widened(target) if old else 0)).astype(target.dtype)


def read_ints(address: int, count: int) -> tuple[int, ...]:
    return tuple((ctypes.c_int * count).from_address(address))


def write_pointer(target: int, value: int) -> None:
    ctypes.c_void_p.from_address(target).value = value
