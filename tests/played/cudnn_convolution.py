"""The played cuDNN's convolutions: their algorithms, and what they compute (cudnn.py)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtrain.core.engines.cudnn import declarations as dnn
from tests.played.cudnn_descriptors import Descriptors, Refused, blend, widened

# An algorithm's workspace in bytes and its time; others are not supported. Number 2 is too large for every GPU.
WORKSPACES = {0: 0, 1: 4096, 2: 1 << 50}
TIMES_MS = {0: 0.5, 1: 0.25, 2: 0.125}


class Convolutions(Descriptors):
    """Functions of convolutions."""

    def _workspace_size(
        self, direction: str, handle: int, a: int, b: int, convolution: int, c: int, algorithm: int, size: int
    ) -> None:
        if algorithm not in WORKSPACES:
            raise Refused(f"algorithm {algorithm}")
        ctypes.c_size_t.from_address(size).value = WORKSPACES[algorithm]

    def _find(
        self, direction: str, handle: int, a: int, a_at: int, b: int, b_at: int, convolution: int, c: int,
        c_at: int, count: int, num_found: int, found: int, workspace: int, workspace_bytes: int,
    ) -> None:  # fmt: skip
        *_, result = self._roles(direction, (a, a_at), (b, b_at), (c, c_at))
        self._bytes(workspace, workspace_bytes)
        self._refuse_halves(f"Convolution{direction}", result)
        result[...] = np.nan
        self._report(direction, count, num_found, found, workspace_bytes)

    def _recommend(
        self, direction: str, handle: int, a: int, b: int, convolution: int, c: int, count: int, num_found: int,
        found: int,
    ) -> None:  # fmt: skip
        self._report(direction, count, num_found, found, 1 << 60)

    def _report(self, direction: str, count: int, num_found: int, found: int, room: int) -> None:
        rows = (dnn.Performance * count).from_address(found)
        ctypes.c_int.from_address(num_found).value = len(TIMES_MS)
        for row, (algorithm, time_ms) in zip(
            rows, sorted(TIMES_MS.items(), key=lambda one: one[1]), strict=False
        ):
            row.algorithm, row.time_ms, row.num_bytes = algorithm, time_ms, WORKSPACES[algorithm]
            row.status = 0 if row.num_bytes <= room else dnn.BAD_PARAM
            row.determinism = int(algorithm != 1)
            row.math_type = 0

    def _roles(self, direction: str, *operands: tuple[int, int]) -> list[np.ndarray]:
        """Return a, b and c of a pass: tensors, but for the filter."""
        place = {"Forward": 1, "BackwardData": 0, "BackwardFilter": 2}[direction]
        kinds = ["Filter" if k == place else "Tensor" for k in range(3)]
        return [self._values(kind, *pair) for kind, pair in zip(kinds, operands, strict=True)]

    def _convolve(
        self, direction: str, handle: int, alpha: int, a: int, a_at: int, b: int, b_at: int, convolution: int,
        algorithm: int, workspace: int, workspace_bytes: int, beta: int, c: int, c_at: int,
    ) -> None:  # fmt: skip
        assert handle in self.handles
        assert workspace_bytes >= WORKSPACES[algorithm], "a workspace is too small"
        self._bytes(workspace, workspace_bytes)
        first, second, result = self._roles(direction, (a, a_at), (b, b_at), (c, c_at))
        assert first.dtype == second.dtype == result.dtype
        self._refuse_halves(f"Convolution{direction}", result)
        window = Window(**self._thing("Convolution", convolution).numbers)
        compute = {
            "Forward": window.correlate,
            "BackwardData": window.spread,
            "BackwardFilter": window.gradient,
        }
        computed = compute[direction](widened(first), widened(second), result.shape)
        blend(alpha, computed, beta, result)

    def ConvolutionBackwardBias(
        self, handle: int, alpha: int, dy: int, dy_at: int, beta: int, db: int, db_at: int
    ) -> None:
        y_diff, diff = self._operands(handle, (dy, dy_at), (db, db_at), alike=False)
        self._refuse_halves("ConvolutionBackwardBias", y_diff)
        axes = (0, *range(2, y_diff.ndim))
        blend(alpha, widened(y_diff).sum(axis=axes, keepdims=True), beta, diff)


@dataclass
class Window:
    """The windows of a convolution, between fine images (N, C, …) and coarse ones (N, K, …)."""

    pad: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    group: int
    math: int

    def correlate(self, fine: np.ndarray, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        coarse = np.zeros(shape)
        self._check(fine.shape, weight.shape, shape)
        for tap, seen in self._taps(self._padded(fine), weight.shape, shape):
            for inputs, outputs in self._groups(weight.shape):
                product = np.tensordot(seen[:, inputs], weight[(outputs, slice(None), *tap)], ((1,), (1,)))
                coarse[:, outputs] += np.moveaxis(product, -1, 1)
        return coarse

    def spread(self, weight: np.ndarray, coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        padded = self._padded(np.zeros(shape))
        self._check(shape, weight.shape, coarse.shape)
        for tap, seen in self._taps(padded, weight.shape, coarse.shape):
            for inputs, outputs in self._groups(weight.shape):
                product = np.tensordot(coarse[:, outputs], weight[(outputs, slice(None), *tap)], ((1,), (0,)))
                seen[:, inputs] += np.moveaxis(product, -1, 1)
        inside = [slice(pad, pad + size) for pad, size in zip(self.pad, shape[2:], strict=True)]
        return padded[:, :, *inside]

    def gradient(self, fine: np.ndarray, coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        weight = np.zeros(shape)
        self._check(fine.shape, shape, coarse.shape)
        axes = (0, *range(2, fine.ndim))
        for tap, seen in self._taps(self._padded(fine), shape, coarse.shape):
            for inputs, outputs in self._groups(shape):
                product = np.tensordot(coarse[:, outputs], seen[:, inputs], (axes, axes))
                weight[(outputs, slice(None), *tap)] = product
        return weight

    def _padded(self, fine: np.ndarray) -> np.ndarray:
        return np.pad(fine, [(0, 0), (0, 0), *((pad, pad) for pad in self.pad)])

    def _taps(self, padded: np.ndarray, weight: tuple[int, ...], coarse: tuple[int, ...]) -> Any:
        for tap in np.ndindex(weight[2:]):
            steps = zip(tap, self.dilation, self.stride, coarse[2:], strict=True)
            yield tap, padded[:, :, *(slice(t * d, t * d + (p - 1) * s + 1, s) for t, d, s, p in steps)]

    def _groups(self, weight: tuple[int, ...]) -> Any:
        num_outputs, num_inputs = weight[0] // self.group, weight[1]
        for g in range(self.group):
            yield (
                slice(g * num_inputs, (g + 1) * num_inputs),
                slice(g * num_outputs, (g + 1) * num_outputs),
            )

    def _check(self, fine: tuple[int, ...], weight: tuple[int, ...], coarse: tuple[int, ...]) -> None:
        assert fine[1] == weight[1] * self.group
        assert weight[0] % self.group == 0
        window = zip(fine[2:], weight[2:], self.stride, self.pad, self.dilation, strict=True)
        sizes = [(h + 2 * pad - (d * (r - 1) + 1)) // s + 1 for h, r, s, pad, d in window]
        assert coarse == (fine[0], weight[0], *sizes), "lengths of the output must follow from the input's"
