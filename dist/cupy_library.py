"""cupy and NCCL, imported here only, and what must be installed for them.

In the flow prototxt → graph → net → solver → communicator → snapshot this serves the engines and the communicator
of GPUs; loading takes a second and needs no GPU.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

from dtrain.dist.errors import LaunchError

_SUCCESS, _NOT_READY = 0, 600  # cudaError_t


def load_cupy() -> ModuleType:
    """Load cupy; return its module. Raises LaunchError if it is not installed or can't be loaded."""
    try:
        import cupy
    except ImportError as error:
        raise LaunchError(
            f"gpu: cupy must be installed for arrays on GPUs ({error}); pip install 'dtrain[cuda12]' or"
            " 'dtrain[cuda13]', as the driver has it"
        ) from error
    module: ModuleType = cupy
    return module


def load_nccl() -> ModuleType:
    """Load cupy and NCCL; return cupy's module.

    Raises:
        LaunchError: cupy is not installed, or finds no NCCL.
    """
    cupy = load_cupy()
    with warnings.catch_warnings(action="ignore"):  # which say no more than the error below
        from cupy.cuda import nccl

    if not getattr(nccl, "available", False):
        raise LaunchError(
            "nccl: cupy must find libnccl.so.2, found none; pip install 'dtrain[cuda12]' or 'dtrain[cuda13]',"
            " or put its folder into LD_LIBRARY_PATH"
        )
    return cupy


def mark(cupy: Any, stream: Any) -> Any:
    """Return an event that happens when `stream` is done with what it was given so far."""
    event = cupy.cuda.Event(disable_timing=True)
    event.record(stream)
    return event


def has_happened(cupy: Any, event: Any) -> bool:
    """Return whether a GPU has come to `event`, a cupy.cuda.Event; the host does not wait.

    Raises CUDARuntimeError if the GPU has failed: the event's own `done` then says no for ever.
    """
    runtime = cupy.cuda.runtime
    status = runtime.eventQuery(event.ptr)
    if status not in (_SUCCESS, _NOT_READY):
        runtime.check_status(status)
    return bool(status == _SUCCESS)
