"""What is used of cupy.cuda to find and choose GPUs, on played ones: GPU n is a "Played n" of 8 GB.

Each thread has its current GPU, at first 0, as with CUDA. Strict where CUDA is: a number that is no GPU's, a name
that is no attribute's, and a host without GPUs are errors. Streams and graphs are those of graphs.py.
"""

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace
from typing import Any

from tests.played.graphs import CudaError, Event, Graph, MemoryPool, Stream, using_allocator
from tests.played.host_traffic import refuse_host

TOTAL_BYTES = 8 << 30
FREE_BYTES = 7 << 30
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"

# A few of CUDA's numbers for attributes, and what the played GPUs have.
ATTRIBUTES = {
    "MaxThreadsPerBlock": (1, 1024),
    "MaxBlockDimX": (2, 1024),
    "MaxBlockDimY": (3, 1024),
    "MaxBlockDimZ": (4, 64),
    "MaxGridDimX": (5, 2147483647),
    "MaxGridDimY": (6, 65535),
    "MaxGridDimZ": (7, 65535),
    "MaxSharedMemoryPerBlock": (8, 49152),
    "TotalConstantMemory": (9, 65536),
    "WarpSize": (10, 32),
    "MaxPitch": (11, 2147483647),
    "MaxRegistersPerBlock": (12, 65536),
    "ClockRate": (13, 1980000),
    "TextureAlignment": (14, 512),
    "GpuOverlap": (15, 1),
    "MultiProcessorCount": (16, 132),
    "KernelExecTimeout": (17, 0),
}


class OutOfMemoryError(MemoryError):
    """What cupy's pool raises."""


class Cuda(SimpleNamespace):
    """The namespace cupy.cuda of a host with so many GPUs."""

    def __init__(self, num_devices: int) -> None:
        self._thread = threading.local()
        self.runtime = Runtime(self, num_devices)
        self.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        self.Stream, self.Event, self.Graph = Stream, Event, Graph
        self.MemoryPool, self.using_allocator = MemoryPool, using_allocator
        self.alloc_pinned_memory = bytearray
        self.Device = lambda device=None: Device(self, self.current if device is None else device)

    @property
    def current(self) -> int:
        """The number of this thread's GPU."""
        return getattr(self._thread, "number", 0)

    @current.setter
    def current(self, number: int) -> None:
        self._thread.number = number

    def get_current_stream(self) -> Any:
        """Return this thread's."""
        return Stream.current()


class Runtime:
    """cupy.cuda.runtime."""

    CUDARuntimeError = CudaError
    memcpyHostToDevice, memcpyDeviceToHost = 1, 2

    def __init__(self, cuda: Cuda, num_devices: int) -> None:
        self._cuda, self._num_devices = cuda, num_devices
        for name, (number, _) in ATTRIBUTES.items():
            setattr(self, f"cudaDevAttr{name}", number)

    def check(self, device: int) -> None:
        if not 0 <= device < self._num_devices:
            raise CudaError(
                "cudaErrorInvalidDevice: invalid device ordinal" if self._num_devices else NO_DEVICE
            )

    def eventQuery(self, event: int) -> int:
        """Return cudaSuccess: what can be waited for has happened. cupy's returns errors, and raises none."""
        Event.by_ptr[event].synchronize()
        return 0

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        """Copy bytes at once."""
        refuse_host("a copy by way of pinned memory")
        ctypes.memmove(dst, src, size)

    def getDeviceCount(self) -> int:
        self.check(0)
        return self._num_devices

    def getDevice(self) -> int:
        self.check(0)
        return self._cuda.current

    def getDeviceProperties(self, device: int) -> dict[str, Any]:
        self.check(device)
        name = f"Played {device}".encode()
        return {"name": name, "totalGlobalMem": TOTAL_BYTES, "major": 9, "minor": 0}

    def deviceGetAttribute(self, attrib: int, device: int) -> int:
        self.check(device)
        (value,) = [value for number, value in ATTRIBUTES.values() if number == attrib]
        return value

    def driverGetVersion(self) -> int:
        return 13000

    def runtimeGetVersion(self) -> int:
        return 13020


class Device:
    """A GPU, by number; in a `with` block the current one."""

    def __init__(self, cuda: Cuda, device: int) -> None:
        self._cuda, self.id = cuda, device

    def use(self) -> None:
        self._cuda.runtime.check(self.id)
        self._cuda.current = self.id

    def synchronize(self) -> None:
        refuse_host("synchronize of a device")

    @property
    def mem_info(self) -> tuple[int, int]:
        self._cuda.runtime.check(self.id)
        return FREE_BYTES, TOTAL_BYTES

    @property
    def pci_bus_id(self) -> str:
        self._cuda.runtime.check(self.id)
        return f"0000:{self.id:02x}:00.0"

    def __enter__(self) -> Device:
        self._left = self._cuda.current
        self.use()
        return self

    def __exit__(self, *error: object) -> None:
        self._cuda.current = self._left
