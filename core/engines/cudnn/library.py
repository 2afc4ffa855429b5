"""Finds and loads cuDNN's shared library, whose C API (version 9) binding.py calls through ctypes.

The wheels nvidia-cudnn-cu12 and -cu13 (extras `cuda12`, `cuda13`) put it into site-packages/nvidia/cudnn/lib. It
finds the other libraries of cuDNN beside itself, and those find the wheels of cuBLAS and NVRTC, when they are first
needed: nothing has to be loaded before it, and loading it needs no GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtrain.core.engines.shared_library import load_first
from dtrain.core.errors import UserError

VARIABLE = "DTRAIN_CUDNN"
FILE_NAME = "libcudnn.so.9"
MAJOR = 9
FIX = (
    "pip install 'dtrain[cuda12]' or 'dtrain[cuda13]', as the driver has it,"
    f" or let {VARIABLE} be the path of a {FILE_NAME}"
)


@dataclass(frozen=True)
class Library:
    """A loaded cuDNN. functions: what has its functions as attributes."""

    functions: Any
    path: str
    version: str


def load_library(environment: Mapping[str, str] = os.environ) -> Library:
    """Load the first cuDNN that there is: the one DTRAIN_CUDNN names, that of a wheel, the system's.

    Raises MissingLibrary if there is none, and UserError if what there is can't be used.
    """
    found = load_first(_candidates(environment), f"engine cudnn needs cuDNN {MAJOR}, got none", FIX)
    return check_library(*found)


def _candidates(environment: Mapping[str, str]) -> Iterator[str]:
    if environment.get(VARIABLE):
        yield os.fspath(Path(environment[VARIABLE]).absolute())
        return
    for folder in sys.path:
        installed = Path(folder, "nvidia", "cudnn", "lib", FILE_NAME)
        if installed.exists():
            yield os.fspath(installed)
            return
    yield FILE_NAME


def check_library(functions: Any, path: str) -> Library:
    """Return the library. Raises UserError unless it is cuDNN 9."""
    try:
        functions.cudnnGetVersion.restype = ctypes.c_size_t
        number = int(functions.cudnnGetVersion())
    except AttributeError:
        raise UserError(f"{path} must be cuDNN, got a library without cudnnGetVersion; {FIX}") from None
    major, rest = divmod(number, 10000 if number >= 10000 * MAJOR else 1000)
    version = f"{major}.{rest // 100}.{rest % 100}"
    if major != MAJOR:
        raise UserError(f"{path} must be cuDNN {MAJOR}, got {version}; {FIX}")
    return Library(functions, path, version)
