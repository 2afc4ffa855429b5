"""The part of cupy, its streams and its NCCL that dist/nccl.py uses, on numpy and threads, for want of a GPU.

Device arrays lie in host memory and NCCL's calls get real addresses, so counts and types must be right. A stream is
a thread with a queue: what it is given is done later, in order. Arithmetic is done at once, in the caller's thread;
a `with stream` block therefore waits for the queue first.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
import threading
import time
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.dist.errors import ClusterError
from tests.played.cupy import DeviceArray as PlayedArray
from tests.played.kernels import PlayedRawKernel
from tests.played.nccl import make_nccl

FILL_DELAY_S = 0.01  # so that a call that doesn't wait for the caller's stream sums the values before
SUCCESS, NOT_READY = 0, 600
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
LATE_S = 60.0  # what a stream may take; the safety net against a test that hangs

_state = threading.local()  # of each rank's thread: current device and stream


class CudaError(RuntimeError):
    """What CUDA's calls raise."""


class DeviceArray(np.ndarray):
    """An array "in device memory"."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def fill(self, value: Any) -> None:
        """Fill with `value` when the current stream comes to it."""

        def late() -> None:
            time.sleep(FILL_DELAY_S)
            self.view(np.ndarray)[...] = value

        current_stream().give(late)


Queue = queue.SimpleQueue[Callable[[], None] | None]  # None: nobody has the stream any more


class Stream:
    """A queue of work and the thread that does it, for as long as somebody has the stream."""

    by_ptr: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()

    def __init__(self, non_blocking: bool = False, priority: int | None = None) -> None:
        self.ptr = id(self)
        self.by_ptr[self.ptr] = self
        self._queue: Queue = queue.SimpleQueue()
        threading.Thread(target=_work_off, args=(self._queue,), name="stream", daemon=True).start()
        weakref.finalize(self, self._queue.put, None)

    def give(self, work: Callable[[], None]) -> None:
        self._queue.put(work)

    def is_capturing(self) -> bool:
        return False  # tests/played has streams that do

    def wait_event(self, event: Event) -> None:
        over = event.over
        self.give(lambda: over.wait(LATE_S) or None)

    def synchronize(self) -> None:
        event = Event()
        event.record(self)
        if not event.over.wait(LATE_S):
            raise CudaError("the stream is late")

    def __enter__(self) -> Stream:
        self.synchronize()
        _state.stream, self._left = self, current_stream()
        return self

    def __exit__(self, *error: object) -> None:
        _state.stream = self._left


def _work_off(given: Queue) -> None:
    with contextlib.suppress(ClusterError):  # a meeting was broken up: check_async_error tells
        while (work := given.get()) is not None:
            work()
            del work  # which may be the last to have a stream or an array


class Event:
    """A mark in a stream."""

    by_ptr: weakref.WeakValueDictionary[int, Event] = weakref.WeakValueDictionary()

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.ptr = id(self)
        self.by_ptr[self.ptr] = self
        self.over = threading.Event()
        self.failure = 0  # a number of CUDA's, once the GPU has failed

    def record(self, stream: Stream | None = None) -> None:
        self.over = threading.Event()
        (stream or current_stream()).give(self.over.set)


class Device:
    """A GPU, by number."""

    def __init__(self, device: int) -> None:
        self.id = device
        self.pci_bus_id = f"0000:{device:02x}:00.0"

    def use(self) -> None:
        _state.device = self

    def __enter__(self) -> Device:
        self._left = getattr(_state, "device", None)
        self.use()
        return self

    def __exit__(self, *error: object) -> None:
        _state.device = self._left


def current_stream() -> Stream:
    if not hasattr(_state, "stream"):
        _state.stream = Stream()
    stream: Stream = _state.stream
    return stream


class RawKernel(PlayedRawKernel):
    """A kernel, run at once."""

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        arrays = [PlayedArray(arg.view(np.ndarray)) if isinstance(arg, DeviceArray) else arg for arg in args]
        super().__call__(grid, block, tuple(arrays))


def check_device() -> None:
    assert _state.device is not None, "the real one would take GPU 0"


def asnumpy(array: DeviceArray) -> np.ndarray:
    current_stream().synchronize()
    return np.array(array)


def query_event(event: int) -> int:
    """Return cudaSuccess, cudaErrorNotReady or the number of what has failed; cupy's does not raise it."""
    found = Event.by_ptr[event]
    return found.failure or (SUCCESS if found.over.is_set() else NOT_READY)


def copy_later(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    """Copy bytes when the stream comes to it."""
    assert kind in (HOST_TO_DEVICE, DEVICE_TO_HOST)
    Stream.by_ptr[stream].give(lambda: ctypes.memmove(dst, src, size) or None)


def check_status(status: int) -> None:
    if status != SUCCESS:
        raise CudaError(f"cudaError {status}")


def make_fake_cupy(num_devices: int) -> Any:
    """Return a module with the names that dist/nccl.py uses, on a host with so many GPUs."""

    def count() -> int:
        if num_devices == 0:
            raise CudaError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return num_devices

    runtime = SimpleNamespace(
        getDeviceCount=count,
        CUDARuntimeError=CudaError,
        eventQuery=query_event,
        check_status=check_status,
        memcpyAsync=copy_later,
        memcpyHostToDevice=HOST_TO_DEVICE,
        memcpyDeviceToHost=DEVICE_TO_HOST,
    )
    cuda = SimpleNamespace(
        nccl=make_nccl(lambda stream, work: Stream.by_ptr[stream].give(work), check_device),
        runtime=runtime,
        Device=Device,
        Stream=Stream,
        Event=Event,
        get_current_stream=current_stream,
        alloc_pinned_memory=bytearray,
    )
    return SimpleNamespace(
        cuda=cuda,
        ndarray=DeviceArray,
        RawKernel=RawKernel,
        empty=lambda shape, dtype: np.empty(shape, dtype).view(DeviceArray),
        zeros=lambda shape, dtype: np.zeros(shape, dtype).view(DeviceArray),
        asarray=lambda array: np.array(array).view(DeviceArray),
        asnumpy=asnumpy,
    )


def play(monkeypatch: pytest.MonkeyPatch, num_devices: int) -> Any:
    """Let nccl.py find a host with so many GPUs; return its cupy."""
    cupy = make_fake_cupy(num_devices)
    monkeypatch.setattr("dtrain.dist.nccl.load_nccl", lambda: cupy)
    return cupy
