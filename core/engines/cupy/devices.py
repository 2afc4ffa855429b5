"""The GPUs that this process sees, asked of cupy: how many, what they are, and which one is the current one.

The launcher and pycaffe choose a GPU by this before they make an engine. Where there is no NVIDIA driver that is said
without loading cupy, which takes a second.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dtrain.core.errors import UserError
from dtrain.dist.cupy_library import load_cupy, load_nccl
from dtrain.dist.errors import LaunchError

_DRIVER = "libcuda.so.1"


@dataclass(frozen=True)
class Device:
    """A GPU. number: by which CUDA and --gpu know it. capability: (major, minor). address: on the PCI bus."""

    number: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]
    address: str


@dataclass(frozen=True)
class Room:
    """The memory of a GPU. name: number and name of it."""

    name: str
    free_bytes: int
    total_bytes: int


def open_cupy() -> Any:
    """Return cupy's module on a machine that it can work on.

    Raises UserError with the reason and the fix where the driver, cupy or a GPU is missing.
    """
    cupy = _load()
    with _naming(cupy):
        cupy.cuda.runtime.getDeviceCount()
    return cupy


def count_devices() -> int:
    """Return how many GPUs this process sees, at least 1 (CUDA_VISIBLE_DEVICES counts).

    Raises UserError as open_cupy does.
    """
    return int(open_cupy().cuda.runtime.getDeviceCount())


def find_devices() -> list[Device]:
    """Return the GPUs that this process sees. Takes memory on each of them, a context of CUDA's.

    Raises UserError as open_cupy does.
    """
    cupy = open_cupy()
    with _naming(cupy):
        return [_look_at(cupy, number) for number in range(cupy.cuda.runtime.getDeviceCount())]


def find_room() -> Room:
    """Return how much memory the current GPU has left; what cupy's pool keeps for the next one who asks is free too.

    Raises UserError where the GPU does not answer.
    """
    cupy = open_cupy()
    with _naming(cupy):
        free_bytes, total_bytes = cupy.cuda.Device().mem_info
        left_over = cupy.get_default_memory_pool().free_bytes()
        return Room(name_current(cupy), int(free_bytes) + int(left_over), int(total_bytes))


def out_of_memory_error() -> type[Exception]:
    """Return what cupy raises where a GPU has no room for an array. Raises UserError as open_cupy does."""
    error: type[Exception] = open_cupy().cuda.memory.OutOfMemoryError
    return error


def find_attributes(number: int, names: Sequence[str]) -> dict[str, int]:
    """Return attributes of GPU `number` by the names that CUDA has for them behind cudaDevAttr: WarpSize …"""
    cupy = _load()
    runtime = cupy.cuda.runtime
    with _naming(cupy):
        return {
            name: int(runtime.deviceGetAttribute(getattr(runtime, f"cudaDevAttr{name}"), number))
            for name in names
        }


def use_device(number: int) -> None:
    """Make GPU `number` the current one of this thread. Raises UserError if CUDA can't."""
    cupy = _load()
    with _naming(cupy):
        cupy.cuda.Device(number).use()


def name_current(cupy: Any) -> str:
    """Return number and name of the current GPU of `cupy`, which open_cupy returned: ``GPU 0 (NVIDIA H200)``."""
    with _naming(cupy):
        runtime = cupy.cuda.runtime
        number = int(runtime.getDevice())
        return f"GPU {number} ({runtime.getDeviceProperties(number)['name'].decode()})"


def find_versions() -> dict[str, str]:
    """Return the versions of cupy, of the CUDA runtime in it, and the newest that the driver can do.

    Raises UserError where the driver or cupy is missing.
    """
    cupy = _load()
    with _naming(cupy):
        runtime = cupy.cuda.runtime
        return {
            "cupy": str(cupy.__version__),
            "CUDA runtime": cuda_version(runtime.runtimeGetVersion()),
            "driver's CUDA": cuda_version(runtime.driverGetVersion()),
        }


def find_nccl() -> str:
    """Return NCCL's version. Raises UserError where cupy or NCCL is missing."""
    try:
        number = int(load_nccl().cuda.nccl.get_version())
    except LaunchError as error:
        raise UserError(str(error)) from error
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def cuda_version(number: int) -> str:
    """Return a version of CUDA, which counts 13020 for 13.2, as text."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _load() -> Any:
    """Return cupy's module. Raises UserError where the driver or cupy is missing."""
    _find_driver()
    try:
        return load_cupy()
    except LaunchError as error:
        raise UserError(str(error).removeprefix("gpu: ")) from error


def _find_driver() -> None:
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise UserError(
            f"NVIDIA's driver must be there for GPUs, got none ({error}); install it, or start the container with"
            " access to GPUs"
        ) from error


@contextmanager
def _naming(cupy: Any) -> Iterator[None]:
    """Turn CUDA's errors into sentences."""
    try:
        yield
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(
            f"CUDA must find a GPU that it can use, got {error}; see nvidia-smi and CUDA_VISIBLE_DEVICES, and that"
            " the driver is as new as the CUDA of cupy"
        ) from error


def _look_at(cupy: Any, number: int) -> Device:
    properties, device = cupy.cuda.runtime.getDeviceProperties(number), cupy.cuda.Device(number)
    free_bytes, _ = device.mem_info
    return Device(
        number=number,
        name=properties["name"].decode(),
        total_bytes=int(properties["totalGlobalMem"]),
        free_bytes=int(free_bytes),
        capability=(int(properties["major"]), int(properties["minor"])),
        address=str(device.pci_bus_id),
    )
