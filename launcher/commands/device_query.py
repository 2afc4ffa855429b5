"""``dtrain device-query``: describe the GPUs of this host, in the words of ``caffe device_query``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from dtrain.core.engines.cupy.devices import Device, find_attributes, find_devices
from dtrain.core.errors import UserError
from dtrain.launcher.gpus import parse_gpus

# What Caffe says of a GPU behind its name and memory, and which of CUDA's attributes that is.
_ROWS = {
    "Total shared memory per block": ("MaxSharedMemoryPerBlock",),
    "Total registers per block": ("MaxRegistersPerBlock",),
    "Warp size": ("WarpSize",),
    "Maximum memory pitch": ("MaxPitch",),
    "Maximum threads per block": ("MaxThreadsPerBlock",),
    "Maximum dimension of block": ("MaxBlockDimX", "MaxBlockDimY", "MaxBlockDimZ"),
    "Maximum dimension of grid": ("MaxGridDimX", "MaxGridDimY", "MaxGridDimZ"),
    "Clock rate": ("ClockRate",),
    "Total constant memory": ("TotalConstantMemory",),
    "Texture alignment": ("TextureAlignment",),
    "Concurrent copy and execution": ("GpuOverlap",),
    "Number of multiprocessors": ("MultiProcessorCount",),
    "Kernel execution timeout": ("KernelExecTimeout",),
}
ATTRIBUTES = [name for names in _ROWS.values() for name in names]
_FLAGS = ("GpuOverlap", "KernelExecTimeout")
_WIDTH = 31  # of a label and its colon


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--gpu", default="all", help="device numbers separated by commas, or all")


def run(args: argparse.Namespace) -> int:
    """Print a block of lines for each chosen GPU; where there is none, why."""
    listed = parse_gpus(args.gpu)
    try:
        devices = find_devices()
    except UserError as error:
        if listed:
            raise UserError(f"--gpu {args.gpu}: {error}") from error
        print(f"No cuda device present: {error}")
        return 0
    for device in choose(devices, listed):
        print("\n".join(device_lines(device, find_attributes(device.number, ATTRIBUTES))))
    return 0


def choose(devices: Sequence[Device], listed: Sequence[int]) -> list[Device]:
    """Return the devices whose numbers are listed, all for an empty list. Raises UserError for an unknown number."""
    unknown = [number for number in listed if number >= len(devices)]
    if unknown:
        known = ", ".join(str(device.number) for device in devices)
        raise UserError(f"--gpu: the numbers must be of GPUs that are here, {known}, got {unknown[0]}")
    return [devices[number] for number in listed] or list(devices)


def device_lines(device: Device, attributes: Mapping[str, int]) -> list[str]:
    """Return Caffe's lines on a GPU. attributes: CUDA's, by name."""
    rows = {
        "Device id": str(device.number),
        "Major revision number": str(device.capability[0]),
        "Minor revision number": str(device.capability[1]),
        "Name": device.name,
        "Total global memory": str(device.total_bytes),
        **{label: ", ".join(_value(name, attributes) for name in names) for label, names in _ROWS.items()},
    }
    return [f"{label + ':':<{_WIDTH}}{value}" for label, value in rows.items()]


def _value(name: str, attributes: Mapping[str, int]) -> str:
    return ("No", "Yes")[attributes[name] != 0] if name in _FLAGS else str(attributes[name])
