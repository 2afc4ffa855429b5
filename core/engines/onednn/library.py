"""Finds and loads oneDNN's shared library, whose C API (version 3) binding.py calls through ctypes.

The wheel onednn-cpu-gomp (extra `cpu`) puts it into the environment's lib. Debian's libdnnl has version 2, and later
wheels are SYCL builds, which do not load alone: both are refused by name.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dtrain.core.engines.shared_library import load_first
from dtrain.core.errors import UserError

VARIABLE = "DTRAIN_ONEDNN"
FILE_NAME = "libdnnl.so.3"
MAJOR = 3
FIX = f"pip install 'dtrain[cpu]', or let {VARIABLE} be the path of a {FILE_NAME}"

NO_BF16 = "precision BF16 must be computed by a CPU with avx512_bf16, got one without; use FLOAT32"

_BF16_BIT = 1 << 7  # of dnnl_cpu_isa_t: avx512_core_bf16 and all beyond it
_RUNTIMES = {1: "sequential", 2: "OpenMP", 4: "TBB", 8: "thread pool"}


class _Version(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
        ("patch", ctypes.c_int),
        ("hash", ctypes.c_char_p),
        ("cpu_runtime", ctypes.c_uint),
        ("gpu_runtime", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Library:
    """A loaded oneDNN. runtime: what its threads are. has_bf16: the CPU multiplies bf16, and oneDNN lets it."""

    functions: ctypes.CDLL
    path: str
    version: str
    runtime: str
    has_bf16: bool


def load_library(environment: Mapping[str, str] = os.environ) -> Library:
    """Load the first oneDNN that there is: the one DTRAIN_ONEDNN names, the environment's, the system's.

    Raises MissingLibrary if there is none, and UserError if what there is can't be used.
    """
    found = load_first(_candidates(environment), f"engine onednn needs oneDNN {MAJOR}, got none", FIX)
    return check_library(*found)


def _candidates(environment: Mapping[str, str]) -> Iterator[str]:
    if environment.get(VARIABLE):
        yield os.fspath(Path(environment[VARIABLE]).absolute())
        return
    installed = Path(sys.prefix, "lib", FILE_NAME)
    if installed.exists():
        yield os.fspath(installed)
    yield FILE_NAME


def check_library(functions: ctypes.CDLL, path: str) -> Library:
    """Return the library. Raises UserError unless it has version 3 and runs on plain CPU threads."""
    try:
        functions.dnnl_version.restype = ctypes.POINTER(_Version)
        version = functions.dnnl_version().contents
    except AttributeError:
        raise UserError(f"{path} must be oneDNN, got a library without dnnl_version; {FIX}") from None
    number = f"{version.major}.{version.minor}.{version.patch}"
    if version.major != MAJOR:
        raise UserError(f"{path} must be oneDNN {MAJOR}, got {number}; {FIX}")
    runtime = _RUNTIMES.get(version.cpu_runtime)
    if runtime is None:
        raise UserError(f"{path} must compute on CPU threads, got a SYCL build or one for GPUs alone; {FIX}")
    return Library(functions, path, number, runtime, bool(functions.dnnl_get_effective_cpu_isa() & _BF16_BIT))
