"""The played cuDNN's functions of one tensor: activations, normalisations and softmax (cudnn.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.played.cudnn_descriptors import Descriptors, blend, widened, widened_or_last


class Functions(Descriptors):
    """Functions of one tensor."""

    def ActivationForward(
        self, handle: int, what: int, alpha: int, x: int, x_at: int, beta: int, y: int, y_at: int
    ) -> None:
        x_data, y_data = self._operands(handle, (x, x_at), (y, y_at))
        self._refuse_halves("ActivationForward", x_data)
        mode, wide = self._thing("Activation", what).numbers["mode"], widened(x_data)
        functions = {
            0: lambda: 0.5 * np.tanh(0.5 * wide) + 0.5,
            1: lambda: np.maximum(wide, 0),
            2: lambda: np.tanh(wide),
        }
        blend(alpha, functions[mode](), beta, y_data)

    def ActivationBackward(
        self, handle: int, what: int, alpha: int, y: int, y_at: int, dy: int, dy_at: int, x: int, x_at: int,
        beta: int, dx: int, dx_at: int,
    ) -> None:  # fmt: skip
        y_data, y_diff, x_data, x_diff = self._operands(
            handle, (y, y_at), (dy, dy_at), (x, x_at), (dx, dx_at)
        )
        mode, wide = self._thing("Activation", what).numbers["mode"], widened(y_data)
        slopes = {0: wide * (1 - wide), 1: (wide > 0) & (widened(x_data) > 0), 2: 1 - wide * wide}
        blend(alpha, widened(y_diff) * slopes[mode], beta, x_diff)

    def LRNCrossChannelForward(
        self, handle: int, what: int, mode: int, alpha: int, x: int, x_at: int, beta: int, y: int, y_at: int
    ) -> None:
        assert mode == 0
        x_data, y_data = self._operands(handle, (x, x_at), (y, y_at))
        self._refuse_halves("LRNCrossChannelForward", x_data)
        numbers, wide = self._thing("LRN", what).numbers, widened(x_data)
        blend(alpha, wide * _lrn_scale(wide, numbers) ** -numbers["beta"], beta, y_data)

    def LRNCrossChannelBackward(
        self, handle: int, what: int, mode: int, alpha: int, y: int, y_at: int, dy: int, dy_at: int, x: int,
        x_at: int, beta: int, dx: int, dx_at: int,
    ) -> None:  # fmt: skip
        y_data, y_diff, x_data, x_diff = map(
            widened_or_last, self._operands(handle, (y, y_at), (dy, dy_at), (x, x_at), (dx, dx_at)), range(4)
        )
        numbers = self._thing("LRN", what).numbers
        scale = _lrn_scale(x_data, numbers)
        direct = y_diff * scale ** -numbers["beta"]
        factor = 2 * numbers["alpha"] * numbers["beta"] / numbers["n"]
        indirect = factor * x_data * _neighbours(y_diff * y_data / scale, numbers["n"])
        blend(alpha, direct - indirect, beta, x_diff)

    def SoftmaxForward(
        self,
        handle: int,
        algorithm: int,
        mode: int,
        alpha: int,
        x: int,
        x_at: int,
        beta: int,
        y: int,
        y_at: int,
    ) -> None:
        assert (algorithm, mode) == (1, 1)
        x_data, y_data = self._operands(handle, (x, x_at), (y, y_at))
        powers = np.exp(widened(x_data) - widened(x_data).max(axis=1, keepdims=True))
        blend(alpha, powers / powers.sum(axis=1, keepdims=True), beta, y_data)

    def SoftmaxBackward(
        self, handle: int, algorithm: int, mode: int, alpha: int, y: int, y_at: int, dy: int, dy_at: int,
        beta: int, dx: int, dx_at: int,
    ) -> None:  # fmt: skip
        y_data, y_diff, x_diff = self._operands(handle, (y, y_at), (dy, dy_at), (dx, dx_at))
        product = widened(y_data) * widened(y_diff)
        blend(alpha, product - widened(y_data) * product.sum(axis=1, keepdims=True), beta, x_diff)

    def BatchNormalizationForwardTraining(
        self, handle: int, mode: int, alpha: int, beta: int, x: int, x_at: int, y: int, y_at: int, channels: int,
        scale: int, shift: int, factor: float, running_mean: int | None, running_variance: int | None, eps: float,
        saved_mean: int, saved_inverse: int,
    ) -> None:  # fmt: skip
        assert mode == 1
        assert running_mean is running_variance is None
        x_data, y_data = self._operands(handle, (x, x_at), (y, y_at))
        assert x_at != y_at, "batch normalisation does not work in place"
        self._refuse_halves("BatchNormalizationForwardTraining", x_data)
        wide, axes = widened(x_data), (0, *range(2, x_data.ndim))
        mean = wide.mean(axis=axes, keepdims=True)
        inverse = 1 / np.sqrt(wide.var(axis=axes, keepdims=True) + eps)
        scales, shifts, means, inverses = (
            self._values("Tensor", channels, at) for at in (scale, shift, saved_mean, saved_inverse)
        )
        means[...], inverses[...] = mean, inverse
        blend(alpha, (wide - mean) * inverse * scales + shifts, beta, y_data)

    def BatchNormalizationForwardInference(
        self, handle: int, mode: int, alpha: int, beta: int, x: int, x_at: int, y: int, y_at: int, channels: int,
        scale: int, shift: int, mean: int, variance: int, eps: float,
    ) -> None:  # fmt: skip
        assert mode == 1
        x_data, y_data = self._operands(handle, (x, x_at), (y, y_at))
        self._refuse_halves("BatchNormalizationForwardInference", x_data)
        scales, shifts, means, variances = (
            self._values("Tensor", channels, at) for at in (scale, shift, mean, variance)
        )
        normalised = (widened(x_data) - means) / np.sqrt(widened(variances) + eps)
        blend(alpha, normalised * scales + shifts, beta, y_data)

    def BatchNormalizationBackward(
        self, handle: int, mode: int, alpha: int, beta: int, alpha_of_params: int, beta_of_params: int, x: int,
        x_at: int, dy: int, dy_at: int, dx: int, dx_at: int, channels: int, scale: int, dscale: int, dshift: int,
        eps: float, saved_mean: int, saved_inverse: int,
    ) -> None:  # fmt: skip
        assert mode == 1
        x_data, y_diff, x_diff = self._operands(handle, (x, x_at), (dy, dy_at), (dx, dx_at))
        assert dx_at not in (x_at, dy_at), "batch normalisation does not work in place"
        scales, scale_diff, shift_diff, mean, inverse = (
            self._values("Tensor", channels, at) for at in (scale, dscale, dshift, saved_mean, saved_inverse)
        )
        axes = (0, *range(2, x_data.ndim))
        count = x_data.size // x_data.shape[1]
        normalised, gradient = (widened(x_data) - mean) * inverse, widened(y_diff)
        slope = (gradient * normalised).sum(axis=axes, keepdims=True)
        total = gradient.sum(axis=axes, keepdims=True)
        computed = (gradient - total / count - normalised * slope / count) * inverse * scales
        blend(alpha, computed, beta, x_diff)
        blend(alpha_of_params, slope, beta_of_params, scale_diff)
        blend(alpha_of_params, total, beta_of_params, shift_diff)


def _neighbours(values: np.ndarray, n: int) -> np.ndarray:
    before = (n - 1) // 2
    padded = np.pad(values, [(0, 0), (before, n - 1 - before), *[(0, 0)] * (values.ndim - 2)])
    return sum(padded[:, k : k + values.shape[1]] for k in range(n))


def _lrn_scale(x: np.ndarray, numbers: dict[str, Any]) -> np.ndarray:
    return numbers["k"] + numbers["alpha"] / numbers["n"] * _neighbours(x * x, numbers["n"])
