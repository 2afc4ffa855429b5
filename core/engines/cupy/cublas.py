"""cuBLAS's C API, as much of it as products of matrices take, by ctypes.

cupy has these functions too, but refuses them where its current stream is being captured into a graph. The library is
the one that cupy has loaded.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any

import numpy as np

from dtrain.core.errors import UserError

# A function's parameters by its name without `cublas`, a letter each; all return a status.
PARAMETERS = {
    "Create_v2": "p",
    "Destroy_v2": "p",
    "SetStream_v2": "pp",
    "SetWorkspace_v2": "ppz",
    "GemmEx": "piiiiippiipiippiiii",
    "GemmStridedBatchedEx": "piiiiippiilpiilppiiliii",
}
KINDS = {"p": ctypes.c_void_p, "i": ctypes.c_int, "l": ctypes.c_longlong, "z": ctypes.c_size_t}

WORKSPACE_BYTES = 32 << 20  # what cuBLAS's documents recommend for the largest GPUs


class CublasError(RuntimeError):
    """A call of cuBLAS's has failed."""


class _Mine(threading.local):
    """A thread's cuBLAS, the stream that it was given last, and the workspace."""

    handle: ctypes.c_void_p | None = None
    stream: int | None = None
    workspace: Any = None


class Cublas:
    """cuBLAS on the GPU that is the current one when this is made; each thread has a handle of its own.

    The workspace is ours: without one, products in a captured graph would get memory from outside of cupy's pool. As
    with cuDNN's, products of one thread must not overlap on two streams.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self._library = load_library(cupy)
        self._library.cublasGetStatusString.restype = ctypes.c_char_p
        self._functions = {name: _declared(self._library, name) for name in PARAMETERS}
        self._device = int(cupy.cuda.runtime.getDevice())
        self._mine = _Mine()

    def multiply(self, *arguments: Any) -> None:
        """Call cublasGemmEx on cupy's current stream; arguments: what follows the handle. Raises CublasError."""
        self._call("GemmEx", self._handle(), *arguments)

    def multiply_stacks(self, *arguments: Any) -> None:
        """Call cublasGemmStridedBatchedEx likewise."""
        self._call("GemmStridedBatchedEx", self._handle(), *arguments)

    def _handle(self) -> ctypes.c_void_p:
        mine, cuda = self._mine, self.cupy.cuda
        if mine.handle is None:
            with cuda.Device(self._device):
                handle = ctypes.c_void_p()
                self._call("Create_v2", ctypes.byref(handle))
                mine.workspace = self.cupy.empty(WORKSPACE_BYTES, np.uint8)
            weakref.finalize(handle, self._functions["Destroy_v2"], handle.value).atexit = False
            mine.handle = handle
        stream = cuda.get_current_stream().ptr
        if stream != mine.stream:
            self._call("SetStream_v2", mine.handle, stream)
            # Behind it, since a new stream brings cuBLAS's own workspace back.
            self._call("SetWorkspace_v2", mine.handle, mine.workspace.data.ptr, WORKSPACE_BYTES)
            mine.stream = stream
        return mine.handle

    def _call(self, name: str, *arguments: Any) -> None:
        status = self._functions[name](*arguments)
        if status:
            known = (self._library.cublasGetStatusString(status) or b"").decode(errors="replace")
            raise CublasError(f"cublas{name} must succeed, got {known} ({status})")


def load_library(cupy: Any) -> Any:
    """Return the cuBLAS of the module cupy, which finds it in wheels and elsewhere. Raises UserError if it can't."""
    try:
        cupy.cuda.cublas  # noqa: B018 (loads the library)
        return ctypes.CDLL(f"libcublas.so.{cupy.cuda.runtime.runtimeGetVersion() // 1000}")
    except (ImportError, OSError) as error:
        raise UserError(
            f"a GPU needs cuBLAS, got none ({error}); pip install 'dtrain[cuda12]' or 'dtrain[cuda13]', as the"
            " driver has it"
        ) from error


def _declared(library: Any, name: str) -> Any:
    function = getattr(library, f"cublas{name}")
    function.argtypes = [KINDS[letter] for letter in PARAMETERS[name]]
    function.restype = ctypes.c_int
    return function
