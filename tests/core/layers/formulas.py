"""Formulas of the larger layers, as plain as can be: one output place after the other, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def convolve(
    x: Array,
    weight: Array,
    bias: Array | float = 0.0,
    stride: tuple[int, ...] = (1, 1),
    pad: tuple[int, ...] = (0, 0),
    dilation: tuple[int, ...] = (1, 1),
    group: int = 1,
) -> Array:
    """Return the cross-correlation of x (N, C, …), one output place after the other."""
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    extents = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    sizes = [(n - e) // s + 1 for n, e, s in zip(padded.shape[2:], extents, stride, strict=True)]
    y = np.zeros((len(x), len(weight), *sizes))
    filters = weight.reshape(group, len(weight) // group, -1)
    for place in np.ndindex(*sizes):
        axes = zip(place, stride, extents, dilation, strict=True)
        window = tuple(slice(i * s, i * s + e, d) for i, s, e, d in axes)
        seen = padded[:, :, *window].reshape(len(x), group, filters.shape[2])
        y[:, :, *place] = np.einsum("ngk,gfk->ngf", seen, filters).reshape(len(x), len(weight)) + bias
    return y


def convolve_both(x: Array, other: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    return convolve(x, weight, bias), convolve(other, weight, bias)


def convolve_axis_2(x: Array, weight: Array, bias: Array) -> Array:
    merged = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    y = convolve(merged, weight, bias, stride=(1,), pad=(0,), dilation=(1,))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def pool(
    x: Array,
    sizes: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    average: bool = False,
) -> tuple[Array, Array]:
    """Return the pooled x (N, C, H, W) and the index of each maximum, one output place after the other."""
    height, width = x.shape[2:]
    y, mask = np.zeros((*x.shape[:2], *sizes)), np.zeros((*x.shape[:2], *sizes))
    for p, q in np.ndindex(*sizes):
        top, left = p * stride[0] - pad[0], q * stride[1] - pad[1]
        bottom, right = min(top + kernel[0], height + pad[0]), min(left + kernel[1], width + pad[1])
        area = (bottom - top) * (right - left)
        rows, columns = range(max(top, 0), min(bottom, height)), range(max(left, 0), min(right, width))
        places = np.array([row * width + column for row in rows for column in columns])
        seen = x.reshape(*x.shape[:2], height * width)[:, :, places]
        y[:, :, p, q] = seen.sum(axis=2) / area if average else seen.max(axis=2)
        mask[:, :, p, q] = places[seen.argmax(axis=2)]
    return y, mask


def pooled(x: Array, **how: object) -> Array:
    return pool(x, **how)[0]  # type: ignore[arg-type]


def normalise_across(x: Array, n: int, alpha: float, beta: float, k: float) -> Array:
    half = n // 2
    padded = np.pad(x * x, [(0, 0), (half, half), (0, 0), (0, 0)])
    sums = sum(padded[:, i : i + x.shape[1]] for i in range(n))
    return x * (k + alpha / n * sums) ** -beta


def normalise_within(x: Array, n: int, alpha: float, beta: float) -> Array:
    half = n // 2
    means = pooled(x * x, sizes=x.shape[2:], kernel=(n, n), pad=(half, half), average=True)
    return x * (1 + alpha * means) ** -beta
