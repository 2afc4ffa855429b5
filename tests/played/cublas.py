"""What is used of cuBLAS, by numpy: gemmEx and what comes before it, on the memory of played device arrays.

Matrices are given by columns, with a distance from column to column. As strict as cuBLAS: the stream and then the
workspace must have been set, addresses must be those of living arrays that are large enough, and only types that go
together are multiplied. A mistake is a status with a message.
"""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dtrain.core.engines.cudnn.cublas import KINDS, PARAMETERS
from tests.played.cupy import room_at
from tests.played.graphs import record
from tests.played.host_traffic import refuse_host

HANDLE = 4711
FAILED = 13
TYPES = {0: np.dtype(np.float32), 2: np.dtype(np.float16), 14: np.dtype(ml_dtypes.bfloat16)}


class PlayedCublas:
    """A loaded cuBLAS. computed_in: the type of each product so far. streams: those that were set."""

    def __init__(self) -> None:
        self.computed_in: list[int] = []
        self.streams: list[int | None] = []
        self._has_workspace = False
        self._message = b""
        implementations = self._create, self._destroy, self._set_stream, self._set_workspace, self._gemm_ex
        for (name, letters), implement in zip(PARAMETERS.items(), implementations, strict=True):
            types = [KINDS[letter] for letter in letters]
            setattr(self, f"cublas{name}", ctypes.CFUNCTYPE(ctypes.c_int, *types)(self._checked(implement)))
        self.cublasGetStatusString = _StatusString(self)

    def _checked(self, implement: Any) -> Any:
        def call(*arguments: Any) -> int:
            try:
                implement(*arguments)
                if implement == self._gemm_ex:
                    record(lambda: implement(*arguments))
            except Exception as error:
                self._message = f"{type(error).__name__}: {error}".encode()
                return FAILED
            return 0

        return call

    def _create(self, handle: int) -> None:
        refuse_host("cublasCreate")
        ctypes.c_void_p.from_address(handle).value = HANDLE

    def _destroy(self, handle: int) -> None:
        assert handle == HANDLE

    def _set_stream(self, handle: int, stream: int | None) -> None:
        assert handle == HANDLE
        self.streams.append(stream)
        self._has_workspace = False

    def _set_workspace(self, handle: int, workspace: int, num_bytes: int) -> None:
        assert handle == HANDLE
        assert num_bytes <= room_at(workspace)
        self._has_workspace = True

    def _gemm_ex(
        self,
        handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a_at: int, a_type: int, lda: int,
        b_at: int, b_type: int, ldb: int, beta: int, c_at: int, c_type: int, ldc: int,
        compute_type: int, algorithm: int,
    ) -> None:  # fmt: skip
        """Compute C = alpha·op(A)·op(B) + beta·C, op(A) being (m, k) and op(B) (k, n)."""
        assert (handle, algorithm) == (HANDLE, -1)
        assert self._has_workspace
        assert a_type == b_type
        assert c_type in (a_type, 0)
        assert compute_type == 68 or (compute_type, a_type) == (77, 0)
        new, old = (ctypes.c_float.from_address(factor).value for factor in (alpha, beta))
        a = _columns(a_at, a_type, (k, m) if op_a else (m, k), lda)
        b = _columns(b_at, b_type, (n, k) if op_b else (k, n), ldb)
        c = _columns(c_at, c_type, (m, n), ldc)
        wide = [values.astype(np.float64) for values in (a.T if op_a else a, b.T if op_b else b)]
        c[...] = (new * (wide[0] @ wide[1]) + (c.astype(np.float64) if old else 0)).astype(c.dtype)
        self.computed_in.append(compute_type)


class _StatusString:
    """cublasGetStatusString: what went wrong last."""

    restype: Any = None

    def __init__(self, played: PlayedCublas) -> None:
        self._played = played

    def __call__(self, status: int) -> bytes:
        return self._played._message


def _columns(address: int, number: int, shape: tuple[int, int], distance: int) -> np.ndarray:
    dtype = TYPES[number]
    assert distance >= shape[0]
    num_bytes = ((shape[1] - 1) * distance + shape[0]) * dtype.itemsize
    assert num_bytes <= room_at(address), "an array is too small, or dead"
    buffer = (ctypes.c_char * num_bytes).from_address(address)
    return np.ndarray(shape, dtype, buffer, strides=(dtype.itemsize, distance * dtype.itemsize))


def play_cublas(monkeypatch: pytest.MonkeyPatch) -> PlayedCublas:
    """Let engines find the played cuBLAS; return it."""
    played = PlayedCublas()
    monkeypatch.setattr("dtrain.core.engines.cudnn.cublas.load_library", lambda cupy: played)
    monkeypatch.setattr("dtrain.core.engines.cudnn.cublas.WORKSPACE_BYTES", 1 << 10)
    return played
