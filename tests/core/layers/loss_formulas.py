"""Formulas of losses that compare scores with labels: one place after the other, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from tests.core.layers.layer_harness import Array

Cost = Callable[[Array, int], float]
"""What one place costs, from the probabilities of its classes and its label."""

Divisor = Callable[[int, int, int], int]
"""What the sum is divided by, from the numbers outer, inner and valid."""


def probabilities(scores: Array, axis: int = 1) -> Array:
    return np.exp(scores) / np.exp(scores).sum(axis=axis, keepdims=True)


def places(scores: Array, labels: Array, axis: int) -> Iterator[tuple[Array, int, int]]:
    """Yield of each place the probabilities of its classes, its label and its item, the index along axis 0."""
    num_places_per_item = math.prod(scores.shape[1:]) // scores.shape[axis]
    chances = np.moveaxis(probabilities(scores, axis), axis, -1).reshape(labels.size, scores.shape[axis])
    for place, label in enumerate(labels.flat):
        yield chances[place], int(label), place // num_places_per_item


def sum_over_places(
    cost: Cost,
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    axis: int = 1,
    ignore: int | None = None,
    class_weight: Sequence[float] | None = None,
    divisor: Divisor = lambda outer, inner, valid: valid,
) -> float:
    """Return Σ weight·cost over the places that are not ignored / divisor, at least 1."""
    total, num_valid = 0.0, 0
    for place, (chances, label, item) in enumerate(places(scores, labels, axis)):
        if label == ignore:
            continue
        weight = 1.0 if class_weight is None else class_weight[label]
        if weights is not None:
            weight *= weights.flat[place if weights.size == labels.size else item]
        total += weight * cost(chances, label)
        num_valid += 1
    outer, inner = math.prod(scores.shape[:axis]), math.prod(scores.shape[axis + 1 :])
    return total / max(1, divisor(outer, inner, num_valid))


def minus_log(chances: Array, label: int) -> float:
    return -math.log(chances[label])


def smoothed(chances: Array, label: int, smoothing: float) -> float:
    """Return the cross entropy with the target (1 − ε)·onehot + ε / C, class by class."""
    targets = [smoothing / len(chances) + (1 - smoothing) * (c == label) for c in range(len(chances))]
    return -sum(target * math.log(chance) for target, chance in zip(targets, chances, strict=True))


def focal(chances: Array, label: int, alpha: float = 1, gamma: float = 2, sign: int = -1) -> float:
    return -((alpha + sign * chances[label]) ** gamma) * math.log(chances[label])


def infogain(chances: Array, label: int, matrix: Array) -> float:
    return -sum(matrix[label, c] * math.log(max(chance, 1e-20)) for c, chance in enumerate(chances))


softmax_loss = partial(sum_over_places, minus_log)
