"""What is used of cuBLAS, by numpy: products and what comes before them, on the memory of played device arrays.

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

from dtrain.core.engines.cupy.cublas import KINDS, PARAMETERS
from tests.played.graphs import record
from tests.played.host_traffic import refuse_host
from tests.played.memory import room_at

FIRST_HANDLE = 4711
FAILED = 13
TYPES = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float64),
    2: np.dtype(np.float16),
    14: np.dtype(ml_dtypes.bfloat16),
}


class PlayedCublas:
    """A loaded cuBLAS. computed_in: the type of each product so far. streams: those that were set."""

    def __init__(self) -> None:
        self.computed_in: list[int] = []
        self.streams: list[int | None] = []
        self._have_workspaces: dict[int, bool] = {}  # by handle
        self._message = b""
        self._products = self._gemm_ex, self._gemm_strided_batched_ex
        implementations = (
            *(self._create, self._destroy, self._set_stream, self._set_workspace),
            *self._products,
        )
        for (name, letters), implement in zip(PARAMETERS.items(), implementations, strict=True):
            types = [KINDS[letter] for letter in letters]
            setattr(self, f"cublas{name}", ctypes.CFUNCTYPE(ctypes.c_int, *types)(self._checked(implement)))
        self.cublasGetStatusString = _StatusString(self)

    def _checked(self, implement: Any) -> Any:
        def call(*arguments: Any) -> int:
            try:
                implement(*arguments)
                if implement in self._products:
                    record(lambda: implement(*arguments))
            except Exception as error:
                self._message = f"{type(error).__name__}: {error}".encode()
                return FAILED
            return 0

        return call

    def _create(self, handle: int) -> None:
        refuse_host("cublasCreate")
        number = FIRST_HANDLE + len(self._have_workspaces)
        self._have_workspaces[number] = False
        ctypes.c_void_p.from_address(handle).value = number

    def _destroy(self, handle: int) -> None:
        assert handle in self._have_workspaces

    def _set_stream(self, handle: int, stream: int | None) -> None:
        assert handle in self._have_workspaces
        self.streams.append(stream)
        self._have_workspaces[handle] = False

    def _set_workspace(self, handle: int, workspace: int, num_bytes: int) -> None:
        assert handle in self._have_workspaces
        assert num_bytes <= room_at(workspace)
        self._have_workspaces[handle] = True

    def _gemm_ex(
        self,
        handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a_at: int, a_type: int, lda: int,
        b_at: int, b_type: int, ldb: int, beta: int, c_at: int, c_type: int, ldc: int,
        compute_type: int, algorithm: int,
    ) -> None:  # fmt: skip
        """Compute C = alpha·op(A)·op(B) + beta·C, op(A) being (m, k) and op(B) (k, n)."""
        self._gemm_strided_batched_ex(
            handle, op_a, op_b, m, n, k, alpha, a_at, a_type, lda, 0, b_at, b_type, ldb, 0,
            beta, c_at, c_type, ldc, 0, 1, compute_type, algorithm,
        )  # fmt: skip

    def _gemm_strided_batched_ex(
        self,
        handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a_at: int, a_type: int, lda: int,
        a_step: int, b_at: int, b_type: int, ldb: int, b_step: int, beta: int, c_at: int, c_type: int, ldc: int,
        c_step: int, count: int, compute_type: int, algorithm: int,
    ) -> None:  # fmt: skip
        """Compute C = alpha·op(A)·op(B) + beta·C of `count` matrices each, so many values apart."""
        assert algorithm == -1
        assert self._have_workspaces[handle]
        assert a_type == b_type
        assert c_type in ((1,) if a_type == 1 else (a_type, 0))
        assert (compute_type, a_type) in ((68, 0), (77, 0), (70, 1), (68, 2), (68, 14))
        assert count == 1 or c_step >= ldc * (n - 1) + m
        factor = ctypes.c_double if compute_type == 70 else ctypes.c_float
        new, old = (factor.from_address(address).value for address in (alpha, beta))
        a = _columns(a_at, a_type, (count, k, m) if op_a else (count, m, k), lda, a_step)
        b = _columns(b_at, b_type, (count, n, k) if op_b else (count, k, n), ldb, b_step)
        c = _columns(c_at, c_type, (count, m, n), ldc, c_step)
        operands = a.swapaxes(1, 2) if op_a else a, b.swapaxes(1, 2) if op_b else b
        wide = [values.astype(np.float64) for values in operands]
        c[...] = (new * (wide[0] @ wide[1]) + (c.astype(np.float64) if old else 0)).astype(c.dtype)
        self.computed_in.append(compute_type)


class _StatusString:
    """cublasGetStatusString: what went wrong last."""

    restype: Any = None

    def __init__(self, played: PlayedCublas) -> None:
        self._played = played

    def __call__(self, status: int) -> bytes:
        return self._played._message


def _columns(address: int, number: int, shape: tuple[int, int, int], distance: int, step: int) -> np.ndarray:
    dtype = TYPES[number]
    count, num_rows, num_columns = shape
    assert distance >= num_rows
    num_bytes = ((count - 1) * step + (num_columns - 1) * distance + num_rows) * dtype.itemsize
    assert num_bytes <= room_at(address), "an array is too small, or dead"
    buffer = (ctypes.c_char * num_bytes).from_address(address)
    return np.ndarray(
        shape, dtype, buffer, strides=tuple(each * dtype.itemsize for each in (step, 1, distance))
    )


def play_cublas(monkeypatch: pytest.MonkeyPatch) -> PlayedCublas:
    """Let engines find the played cuBLAS; return it."""
    played = PlayedCublas()
    monkeypatch.setattr("dtrain.core.engines.cupy.cublas.load_library", lambda cupy: played)
    monkeypatch.setattr("dtrain.core.engines.cupy.cublas.WORKSPACE_BYTES", 1 << 10)
    return played
