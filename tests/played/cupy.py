"""What layers and operations use of cupy, on numpy: for want of a GPU, its strictness is what counts.

As with cupy, an array of the host and one of the device don't meet in an operation, nothing turns a device array into
a host array but `asnumpy` and `get`, and sums down to one value are arrays still. Values lie in host memory and are
computed by numpy. Where cupy is installed, as it can be without a GPU, it must have the names and take the arguments.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.lib.mixins import NDArrayOperatorsMixin

from dtrain.dist.cupy_library import load_cupy
from tests.played.cublas import play_cublas
from tests.played.cuda import Cuda
from tests.played.graphs import MemoryPool, Stream, enter_memory, repeat
from tests.played.host_traffic import JOINING, MOST_JOINED, PRODUCTS, WAITING, refuse_host, refuse_product
from tests.played.kernels import PlayedRawKernel
from tests.played.memory import address_of

REAL_GPU = "DTRAIN_REAL_GPU"  # if set, tests of engines for GPUs run on the one here, and nothing is played


class DeviceArray(NDArrayOperatorsMixin):
    """An array "in device memory"."""

    __slots__ = ("_values",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        enter_memory(values)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _check_function(ufunc.__name__, inputs)
        return _call(getattr(ufunc, method), inputs, kwargs)

    def __array_function__(
        self, function: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        _check_function(function.__name__, args)
        return _call(function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in WAITING:
            refuse_host(f"{name} of an array")
        if name in PRODUCTS:
            refuse_product()
        value = getattr(self._values, name)
        return (lambda *args, **kwargs: _call(value, args, kwargs)) if callable(value) else _wrap(value)

    def __getitem__(self, index: Any) -> Any:
        _check_index(index)
        return _call(self._values.__getitem__, (index,), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        has_arrays = _check_index(index)
        if isinstance(value, list | tuple) or (has_arrays and not isinstance(value, DeviceArray)):
            refuse_host(f"a {type(value).__name__} as values")
        _call(self._values.__setitem__, (index, value), {})

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        refuse_host("a loop over an array")
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        refuse_host("an array as a bool")
        return bool(self._values)

    def __float__(self) -> float:
        refuse_host("an array as a float")
        return float(self._values)

    def __int__(self) -> int:
        refuse_host("an array as an int")
        return int(self._values)

    def __index__(self) -> int:
        refuse_host("an array as an index")
        return self._values.__index__()

    def __repr__(self) -> str:
        return f"device {self._values!r}"

    def get(
        self, stream: Any = None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True
    ) -> np.ndarray:
        """Return a copy on the host; where that is not to wait, it is there once an event behind it says so."""
        refuse_host("get")
        if out is None:
            out = np.empty(self._values.shape, self._values.dtype)
        assert out.flags.c_contiguous
        assert (out.shape, out.dtype) == (self._values.shape, self._values.dtype)
        if blocking:
            out[...] = self._values
        else:
            copy = self._values.copy()
            (stream or Stream.current()).put_off(lambda: np.copyto(out, copy))
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Take the values of a host array of the same shape and dtype; on another stream once it is waited for."""
        refuse_host("set")
        assert (arr.shape, arr.dtype) == (self._values.shape, self._values.dtype)
        if stream in (None, Stream.current()):
            self._values[...] = arr
        else:
            stream.put_off(lambda: np.copyto(self._values, arr))

    @property
    def nbytes(self) -> int:
        return int(self._values.nbytes)

    @property
    def data(self) -> SimpleNamespace:
        """Where the values lie, for libraries that are given addresses."""
        return SimpleNamespace(ptr=address_of(self._values))


class PlayedCupy(ModuleType):
    """A module whose functions are numpy's, on device arrays."""

    ndarray = DeviceArray
    RawKernel = PlayedRawKernel
    __version__ = "played"

    def asarray(self, values: Any, dtype: Any = None) -> DeviceArray:
        """Copy a host array to the device; a device array stays what it is."""
        if isinstance(values, DeviceArray):
            return values if dtype in (None, values.dtype) else values.astype(dtype)
        refuse_host(f"asarray of a {type(values).__name__}")
        return DeviceArray(np.array(values, dtype))

    def empty(self, shape: Any, dtype: Any = float) -> DeviceArray:
        """Return an array in which anything may be: NaN, where the type has it."""
        values = np.zeros(shape, dtype)
        values.fill(77 if values.dtype.kind in "biu" else np.nan)
        return DeviceArray(values)

    def empty_like(self, array: DeviceArray) -> DeviceArray:
        """Return such an array of the same shape and dtype."""
        return self.empty(array.shape, array.dtype)

    def get_default_memory_pool(self) -> MemoryPool:
        """Return a pool that has nothing left over."""
        return MemoryPool()

    def ascontiguousarray(self, values: Any, dtype: Any = None) -> DeviceArray:
        """As asarray, but what has gaps is copied."""
        array = self.asarray(values, dtype)
        return array if array.flags.c_contiguous else array.copy()

    array = asarray

    def asnumpy(self, array: DeviceArray) -> np.ndarray:
        """Return a copy on the host."""
        return array.get()

    def __getattr__(self, name: str) -> Any:
        value, real = getattr(np, name), _installed(name)
        if isinstance(value, np.ufunc):
            return _Ufunc(value)
        if isinstance(value, type) or not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            _check_function(name, args)
            if inspect.isfunction(real):
                inspect.signature(real).bind(*args, **kwargs)
            return _call(value, args, kwargs)

        return call


class _Ufunc:
    """A function of elements, with its methods. cupy's know these keywords alone."""

    def __init__(self, ufunc: np.ufunc) -> None:
        self._ufunc = ufunc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert kwargs.keys() <= {"out", "dtype"}, kwargs
        _check_function(self._ufunc.__name__, args)
        return _call(self._ufunc, args, kwargs)

    def reduceat(self, array: Any, indices: Any, axis: int = 0) -> Any:
        return _call(self._ufunc.reduceat, (array, indices, axis), {})


def _installed(name: str) -> Any:
    """Return what an installed cupy has by this name; None where cupy is not installed."""
    try:
        import cupy
    except ImportError:
        return None
    return getattr(cupy, name)


def _call(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    plain_args, plain_kwargs = _unwrap(args), {key: _unwrap(value) for key, value in kwargs.items()}
    made = _wrap(function(*plain_args, **plain_kwargs))
    repeat(function, plain_args, plain_kwargs, _unwrap(made))
    return made


def _wrap(value: Any) -> Any:
    """Return arrays, and what numpy makes of those without axes, as device arrays."""
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    if isinstance(value, tuple | list) and any(isinstance(item, np.ndarray) for item in value):
        return type(value)(_wrap(item) for item in value)
    return value


def _check_function(name: str, args: tuple[Any, ...]) -> None:
    """Refuse a function that cupy waits in, copies to the device for, or refuses itself."""
    if name in PRODUCTS:
        refuse_product()
    if name in WAITING:
        refuse_host(name)
    if name in JOINING and len(args[0]) > MOST_JOINED:
        refuse_host(f"{name} of {len(args[0])} arrays")


def _check_index(index: Any) -> bool:
    """Refuse what cupy copies to the device, or must count the places of; return whether there are arrays in it."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, list | tuple):
            refuse_host("a list as an index")
        if isinstance(part, DeviceArray) and part.dtype == bool:
            refuse_host("a mask as an index")
    return any(isinstance(part, DeviceArray) for part in parts)


def _unwrap(value: Any) -> Any:
    """Return the numpy arrays behind device arrays; a host array has no business here."""
    if isinstance(value, DeviceArray):
        return value._values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a host array of shape {value.shape}")
    if isinstance(value, tuple | list):
        return type(value)(_unwrap(item) for item in value)
    return value


def play_cupy(monkeypatch: pytest.MonkeyPatch, num_devices: int = 1) -> Any:
    """Let engines find a driver, cupy, cuBLAS and so many GPUs, all played; return cupy. REAL_GPU: the real one."""
    if os.environ.get(REAL_GPU):
        if num_devices != 1:
            pytest.skip("other numbers of GPUs are played, and this is a real one")
        return load_cupy()
    played = PlayedCupy("cupy")
    played.cuda = Cuda(num_devices)
    monkeypatch.setattr("dtrain.core.engines.cupy.devices._find_driver", lambda: None)
    monkeypatch.setattr("dtrain.core.engines.cupy.devices.load_cupy", lambda: played)
    play_cublas(monkeypatch)
    return played
