"""cuDNN for want of a GPU: the functions that the engine calls, by numpy, from the descriptors they are given.

They are called through ctypes with the types that the engine declares, and read and write the memory of played device
arrays. As strict as cuDNN, or more: addresses must be those of living arrays that are large enough, descriptors alive
and set, types and lengths of operands must fit together, and workspaces must have what algorithms want. A mistake is
a status with a message, as cuDNN's are. What algorithms are tried on is NaN afterwards, as it may be.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import pytest

from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.library import Library
from tests.played.cublas import PlayedCublas, play_cublas
from tests.played.cudnn_convolution import Convolutions
from tests.played.cudnn_descriptors import Refused
from tests.played.cudnn_functions import Functions
from tests.played.cupy import REAL_GPU, play_cupy
from tests.played.graphs import record
from tests.played.host_traffic import refuse_host

FAILED = 5000
NOT_RECORDED = ("Create", "Destroy", "Set", "Get")  # in graphs: what is no work of the GPU's


class PlayedCudnn(Convolutions, Functions):
    """A loaded cuDNN. calls: how often each function was called. refused: names that have no code, for all types or
    for halves. stream: what was set last.
    """

    def __init__(self, refused: tuple[str, ...] = (), refused_in_halves: tuple[str, ...] = ()) -> None:
        super().__init__(refused_in_halves)
        self.refused = refused
        self.refusal = Refused
        self.cublas: PlayedCublas | None = None
        self._message = b""
        for name, letters in dnn.PARAMETERS.items():
            types = [dnn.KINDS[letter] for letter in letters]
            setattr(self, f"cudnn{name}", ctypes.CFUNCTYPE(ctypes.c_int, *types)(self._checked(name)))
        self.cudnnGetVersion = ctypes.CFUNCTYPE(ctypes.c_size_t)(lambda: 92800)
        self.cudnnGetErrorString = _error_string
        self.cudnnGetLastErrorString = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(self._tell)

    def _checked(self, name: str) -> Callable[..., int]:
        implement = self._implementation(name)

        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            if name.startswith("Find"):
                refuse_host(f"cudnn{name}, which measures")
            try:
                if name in self.refused:
                    raise self.refusal(name)
                implement(*arguments)
                if not name.startswith(NOT_RECORDED):
                    record(lambda: implement(*arguments))
            except Refused as error:
                self._message = str(error).encode()
                return error.status
            except Exception as error:
                self._message = f"{type(error).__name__}: {error}".encode()
                return FAILED
            return 0

        return call

    def _implementation(self, name: str) -> Callable[..., None]:
        for verb in ("Create", "Destroy"):
            kind = name.removeprefix(verb).removesuffix("Descriptor")
            if name == f"{verb}{kind}Descriptor":
                method = self._create if verb == "Create" else self._destroy
                return lambda handle: method(kind, handle)
        for direction in dnn.NUM_ALGORITHMS:
            found = {
                f"Find Convolution{direction}AlgorithmEx".replace(" ", ""): self._find,
                f"GetConvolution{direction}Algorithm_v7": self._recommend,
                f"GetConvolution{direction}WorkspaceSize": self._workspace_size,
                f"Convolution{direction}": self._convolve,
            }.get(name)
            if found is not None:
                return lambda *arguments: found(direction, *arguments)  # noqa: B023 (returned at once)
        implement: Callable[..., None] = getattr(self, name)
        return implement

    def _tell(self, address: int, size: int) -> None:
        ctypes.memmove(address, self._message + b"\0", min(size, len(self._message) + 1))


class _ErrorString:
    """cudnnGetErrorString."""

    restype: Any = None

    def __call__(self, status: int) -> bytes:
        if status == FAILED:
            return b"CUDNN_STATUS_EXECUTION_FAILED"
        return b"CUDNN_STATUS_NOT_SUPPORTED" if status >= dnn.NOT_SUPPORTED else b"CUDNN_STATUS_BAD_PARAM"


_error_string = _ErrorString()


def play_cudnn(
    monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...] = (), refused_in_halves: tuple[str, ...] = ()
) -> tuple[PlayedCudnn | None, Any]:
    """Let engines find the played cuDNN, and cupy; return both. On a real GPU (REAL_GPU) nothing is played.

    Convolutions are exact there, as they are here.
    """
    monkeypatch.setattr("dtrain.core.engines.cudnn.engine.ALLOWS_TF32", False)
    if os.environ.get(REAL_GPU):
        if refused or refused_in_halves:
            pytest.skip("what cuDNN refuses is played, and this is a real GPU")
        return None, play_cupy(monkeypatch)
    played = PlayedCudnn(refused, refused_in_halves)
    library = Library(played, "played", "9.28.0")
    monkeypatch.setattr("dtrain.core.engines.cudnn.engine.load_library", lambda: library)
    monkeypatch.setattr("dtrain.core.engines.cudnn.algorithms.FOUND", {})
    cupy = play_cupy(monkeypatch)
    played.cublas = play_cublas(monkeypatch)
    return played, cupy
