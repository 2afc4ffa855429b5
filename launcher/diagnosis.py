"""What ``dtrain doctor`` looks at: what is there, and what is wrong and how to mend it.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: can that run here?
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dtrain.core.errors import MissingLibrary, UserError
from dtrain.dist.cores import look_at
from dtrain.dist.errors import LaunchError
from dtrain.launcher.mpirun import find_mpirun, mpirun_environment, num_physical_cores
from dtrain.launcher.threads import describe_threads

_DRIVER = Path("/proc/driver/nvidia")
_LEAST_FREE_BYTES = 1 << 30
_MPI_TIMEOUT_S = 60
_RANK_PROGRAM = """\
import os
from dtrain.dist.create import create_communicator
communicator = create_communicator(None, os.environ)
communicator.barrier()
if communicator.rank == 0:
    print("ranks", communicator.world_size)
communicator.close()
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. problem: what is wrong and the fix; "" when all is well."""

    subject: str
    text: str
    problem: str = ""


def diagnose() -> Iterator[Finding]:
    """Yield the findings on this machine, one after the other since some take a second."""
    yield Finding("Python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("platform", platform.platform())
    yield Finding("cores", f"{num_physical_cores()} cores; usable: {look_at(0)}")
    yield Finding("threads per rank", describe_threads(os.environ))
    yield examine_numpy()
    yield examine_onednn()
    yield examine_module("google.protobuf", "protobuf")
    yield examine_module("lmdb", "lmdb")
    yield examine_mpi()
    yield from examine_gpus()
    yield examine_disk(os.getcwd(), shutil.disk_usage(".").free)


def examine_numpy() -> Finding:
    """Look at numpy and the BLAS that it multiplies matrices with."""
    finding = examine_module("numpy", "numpy")
    if finding.problem:
        return finding
    blas = importlib.import_module("numpy").show_config(mode="dicts")["Build Dependencies"]["blas"]
    return Finding("numpy", f"{finding.text}, BLAS {blas.get('name')} {blas.get('version')}")


def examine_onednn() -> Finding:
    """Look for oneDNN, with which the faster of the CPU engines computes."""
    try:
        library = importlib.import_module("dtrain.core.engines.onednn.library")
    except ImportError:
        return Finding("CPU engine", "none without numpy")
    try:
        found = library.load_library(os.environ)
    except MissingLibrary as missing:
        return Finding("CPU engine", f"reference, the slower one: {missing}")
    except UserError as error:
        return Finding("CPU engine", "reference, the slower one", str(error))
    bf16 = "bf16" if found.has_bf16 else "no bf16: this CPU has no avx512_bf16"
    text = f"onednn: oneDNN {found.version}, {found.runtime} threads, {bf16} ({found.path})"
    return Finding("CPU engine", text)


def examine_gpus(driver: Path = _DRIVER) -> Iterator[Finding]:
    """Look for GPUs, and for what computes on them and sums between them. driver: where NVIDIA's tells of itself."""
    models = find_models(driver)
    try:
        devices = importlib.import_module("dtrain.core.engines.cupy.devices")
    except ImportError:
        yield Finding("GPU", ", ".join(models) or "none found")
        return
    try:
        found = devices.find_devices()
        versions = devices.find_versions()
    except UserError as error:
        words = f"{', '.join(models)}, not to be used" if models else "none found"
        yield Finding("GPU", f"{words}: {error}")
        return
    for device in found:
        yield Finding(f"GPU {device.number}", describe_device(device))
    versions["driver"] = find_driver_version(driver)
    yield Finding("CUDA", ", ".join(f"{name} {version}" for name, version in versions.items()))
    yield examine_cudnn()
    try:
        yield Finding("NCCL", devices.find_nccl())
    except UserError as error:
        yield Finding("NCCL", f"none, so gradients go by way of the host: {error}")


def describe_device(device: Any) -> str:
    """Return a line on a GPU (core/engines/cupy/devices.py's Device)."""
    major, minor = device.capability
    return (
        f"{device.name}, {device.free_bytes / 1e9:.1f} of {device.total_bytes / 1e9:.1f} GB free, compute capability"
        f" {major}.{minor}, {device.address}"
    )


def find_models(driver: Path = _DRIVER) -> list[str]:
    """Return the model of each GPU that the driver knows, in the order of their addresses; [] without a driver."""
    return [_model(information) for information in sorted(driver.glob("gpus/*/information"))]


def find_driver_version(driver: Path = _DRIVER) -> str:
    """Return the version of the driver, such as 580.65.06; "unknown" where it does not say."""
    try:
        text = (driver / "version").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else "unknown"


def _model(information: Path) -> str:
    for line in information.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Model":
            return value.strip()
    return f"unknown model ({information.parent.name})"


def examine_cudnn() -> Finding:
    """Look for cuDNN, with which the faster of the GPU engines computes."""
    library = importlib.import_module("dtrain.core.engines.cudnn.library")
    try:
        found = library.load_library(os.environ)
    except MissingLibrary as missing:
        return Finding("GPU engine", f"cupy, the slower one: {missing}")
    except UserError as error:
        return Finding("GPU engine", "cupy, the slower one", str(error))
    return Finding("GPU engine", f"cudnn: cuDNN {found.version} ({found.path})")


def examine_module(module: str, requirement: str) -> Finding:
    """Look whether a Python module that dtrain needs can be imported."""
    try:
        found: ModuleType = importlib.import_module(module)
    except ImportError as error:
        return Finding(
            requirement, "missing", f"{requirement} must be there, got: {error}; pip install dtrain"
        )
    return Finding(requirement, str(getattr(found, "__version__", "version unknown")))


def examine_mpi() -> Finding:
    """Start two ranks with the mpirun of this Python and see whether they find each other."""
    if importlib.util.find_spec("mpi4py") is None:
        return Finding("MPI", "none, so one rank only; for more: pip install 'dtrain[mpi]'")
    try:
        mpirun = find_mpirun()
    except LaunchError as error:
        return Finding("MPI", "mpi4py without an mpirun", str(error))
    command = [mpirun, "-np", "2", sys.executable, "-c", _RANK_PROGRAM]
    environment = mpirun_environment(os.environ, 2)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_MPI_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("MPI", mpirun, f"{mpirun} must start two ranks, got no end within {_MPI_TIMEOUT_S} s")
    return judge_mpi(mpirun, done.returncode, done.stdout, done.stderr)


def judge_mpi(mpirun: str, exit_code: int, stdout: str, stderr: str) -> Finding:
    """Judge what two ranks that count themselves have said."""
    if exit_code == 0 and "ranks 2" in stdout:
        return Finding("MPI", f"{mpirun} and mpi4py belong together (tried with two ranks)")
    said = next((line for line in stderr.splitlines() if line.strip()), "nothing")
    return Finding("MPI", mpirun, f"{mpirun} must start two ranks that find each other; it said: {said}")


def examine_disk(folder: str, free_bytes: int) -> Finding:
    """Look whether snapshots have room."""
    text = f"{free_bytes / 1e9:.1f} GB free in {folder}"
    if free_bytes >= _LEAST_FREE_BYTES:
        return Finding("disk", text)
    return Finding("disk", text, f"{folder} must have 1 GB free for snapshots, got {free_bytes / 1e9:.1f} GB")
