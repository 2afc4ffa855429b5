"""The part of cupy, its streams and its NCCL that dist/nccl.py uses, on numpy and threads, for want of a GPU.

Device arrays lie in host memory and NCCL's calls get real addresses, so counts and types must be right. A stream is
a thread with a queue: what it is given is done later, in order. Arithmetic is done at once, in the caller's thread;
a `with stream` block therefore waits for the queue first.
"""

from __future__ import annotations

import ctypes
import itertools
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from dtrain.dist.errors import ClusterError
from dtrain.dist.meeting import Meeting

# cupy 14.2's numbers; test_nccl.py compares them with an installed cupy's.
TYPES = {"UINT8": 1, "INT64": 4, "FLOAT16": 6, "FLOAT32": 7, "FLOAT64": 8, "BFLOAT16": 9}
NCCL_SUM = 0

FILL_DELAY_S = 0.01  # so that a call that doesn't wait for the caller's stream sums the values before
LATE_S = 60.0  # what a stream may take; the safety net against a test that hangs

_state = threading.local()  # of each rank's thread: current device and stream, and the group of calls


class NcclError(RuntimeError):
    """What NCCL's calls raise."""


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


class Stream:
    """A queue of work and the thread that does it."""

    by_ptr: dict[int, Stream] = {}

    def __init__(self, non_blocking: bool = False, priority: int | None = None) -> None:
        self.ptr = id(self)
        self.by_ptr[self.ptr] = self
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def give(self, work: Callable[[], None]) -> None:
        self._queue.put(work)

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

    def _work(self) -> None:
        while True:
            try:
                self._queue.get()()
            except ClusterError:  # a meeting was broken up: check_async_error tells
                return


class Event:
    """A mark in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.over = threading.Event()

    def record(self, stream: Stream) -> None:
        self.over = threading.Event()
        stream.give(self.over.set)

    @property
    def done(self) -> bool:
        return self.over.is_set()


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


class NcclCommunicator:
    """NCCL's communicator: ranks that were given the same id meet; each call is queued in its stream."""

    meetings: dict[bytes, Meeting] = {}
    mail: defaultdict[tuple[bytes, int, int], queue.SimpleQueue[np.ndarray]] = defaultdict(queue.SimpleQueue)

    def __init__(self, ndev: int, commId: bytes, rank: int, config: Any = None) -> None:
        assert len(commId) == 128
        self._id, self._rank = commId, rank
        self._meeting = self.meetings.setdefault(commId, Meeting(ndev))
        self.is_aborted = self.is_destroyed = False
        self.async_error: NcclError | None = None
        assert _state.device is not None, "the real one would take GPU 0"
        self._meeting.swap(rank, "init", None)

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        assert op == NCCL_SUM
        call = f"allReduce {count} {datatype}"

        def work() -> None:
            parts = self._meeting.swap(self._rank, call, view(sendbuf, count, datatype).copy())
            total = parts[-1]  # NCCL promises no order, and rounds at each step
            for part in parts[-2::-1]:
                total = (total + part).astype(total.dtype)
            view(recvbuf, count, datatype)[...] = total

        self._queue(stream, work)

    def broadcast(
        self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int
    ) -> None:
        def work() -> None:
            call = f"broadcast {count} {datatype} {root}"
            parts = self._meeting.swap(self._rank, call, view(sendbuff, count, datatype).copy())
            view(recvbuff, count, datatype)[...] = parts[root]

        self._queue(stream, work)

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        def work() -> None:
            call = f"allGather {count} {datatype}"
            parts = self._meeting.swap(self._rank, call, view(sendbuf, count, datatype).copy())
            view(recvbuf, count * len(parts), datatype)[...] = np.concatenate(parts)

        self._queue(stream, work)

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        assert count > 0

        def work() -> None:
            self.mail[self._id, self._rank, peer].put(view(sendbuf, count, datatype).copy())

        _state.sends.append((stream, work))

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        assert count > 0

        def work() -> None:
            into, part = (
                view(recvbuf, count, datatype),
                self.mail[self._id, peer, self._rank].get(timeout=LATE_S),
            )
            assert (into.size, into.dtype) == (part.size, part.dtype)
            into[...] = part

        _state.receives.append((stream, work))

    def check_async_error(self) -> None:
        if self.async_error is not None:
            raise self.async_error

    def abort(self) -> None:
        self.is_aborted = True
        self._meeting.break_up("aborted")

    def destroy(self) -> None:
        self.is_destroyed = True

    def _queue(self, stream: int, work: Callable[[], None]) -> None:
        Stream.by_ptr[stream].give(work)


def group_start() -> None:
    _state.sends, _state.receives = [], []


def group_end() -> None:
    for stream, work in [*_state.sends, *_state.receives]:  # in this order none waits for its own
        Stream.by_ptr[stream].give(work)


_ids = itertools.count()


def get_unique_id() -> bytes:
    return next(_ids).to_bytes(128, "big")


def view(ptr: int, count: int, datatype: int) -> np.ndarray:
    """Return the elements at an address."""
    name = next(name for name, number in TYPES.items() if number == datatype).lower()
    dtype = np.dtype(bfloat16) if name == "bfloat16" else np.dtype(name)
    raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(ptr)
    return np.frombuffer(raw, np.uint8).view(dtype)


def current_stream() -> Stream:
    if not hasattr(_state, "stream"):
        _state.stream = Stream()
    stream: Stream = _state.stream
    return stream


def asnumpy(array: DeviceArray) -> np.ndarray:
    current_stream().synchronize()
    return np.array(array)


def make_fake_cupy(num_devices: int) -> Any:
    """Return a module with the names that dist/nccl.py uses, on a host with so many GPUs."""

    def count() -> int:
        if num_devices == 0:
            raise CudaError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return num_devices

    nccl = SimpleNamespace(
        available=True,
        NCCL_SUM=NCCL_SUM,
        NcclError=NcclError,
        NcclCommunicator=NcclCommunicator,
        get_unique_id=get_unique_id,
        groupStart=group_start,
        groupEnd=group_end,
        **{f"NCCL_{name}": number for name, number in TYPES.items()},
    )
    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CudaError)
    cuda = SimpleNamespace(
        nccl=nccl,
        runtime=runtime,
        Device=Device,
        Stream=Stream,
        Event=Event,
        get_current_stream=current_stream,
    )
    return SimpleNamespace(
        cuda=cuda,
        ndarray=DeviceArray,
        empty=lambda shape, dtype: np.empty(shape, dtype).view(DeviceArray),
        zeros=lambda shape, dtype: np.zeros(shape, dtype).view(DeviceArray),
        asarray=lambda array: np.array(array).view(DeviceArray),
        asnumpy=asnumpy,
    )
