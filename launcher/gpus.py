"""The GPUs of this host, as the NVIDIA driver names them under /proc.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: device-query and doctor
show them; this release computes on the CPU alone.
"""

from __future__ import annotations

from pathlib import Path

NO_GPU_ENGINE = "this release computes on the CPU; GPU engines come with a later one"


def find_gpus(driver: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Return the model of each GPU, in the order of their bus addresses; [] where there is no driver."""
    return [_model(information) for information in sorted(driver.glob("*/information"))]


def _model(information: Path) -> str:
    for line in information.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Model":
            return value.strip()
    return f"unknown model ({information.parent.name})"
