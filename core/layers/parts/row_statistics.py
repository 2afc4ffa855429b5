"""Rows brought to mean 0 and, if wanted, to deviation 1: what MVN and LayerNorm do, each to rows of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def centred(values: Any) -> Any:
    """Return each row (axis 1) of a matrix less its mean. This is its own gradient."""
    return values - row_means(values)


def row_means(values: Any) -> Any:
    """Return the mean of each row of a matrix (M, K), shape (M, 1); 0 for rows without values."""
    return values.sum(axis=1, keepdims=True) / max(1, values.shape[1])


class RowNormalisation:
    """n = (x − mean) / d for each row of a matrix (M, K), where d is `deviation` of the biased variance.

    n and d are kept for the gradient (g − mean(g) − n·mean(g·n)) / d, which is that of n where d is the root of
    the variance plus a constant.
    """

    def __init__(self, deviation: Callable[[Any], Any]) -> None:
        self._deviation_of = deviation

    def forward(self, x: Any) -> Any:
        """Return n, not to be changed."""
        normalised = centred(x)
        self._deviation = self._deviation_of(row_means(normalised * normalised))
        normalised /= self._deviation
        self.normalised = normalised
        return normalised

    def backward(self, gradient: Any) -> Any:
        """Return the gradient of x for that of n, a new array."""
        result = self.normalised * -row_means(gradient * self.normalised)
        result += gradient
        result -= row_means(gradient)
        result /= self._deviation
        return result
