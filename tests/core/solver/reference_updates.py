"""Update rules and their surroundings in plain float64, written from the formulas: what solvers are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """The fields of a solver, by Caffe's names, at Caffe's defaults."""

    base_lr: float = 1.0
    momentum: float = 0.0
    momentum2: float = 0.999
    delta: float = 1e-8
    rms_decay: float = 0.99
    weight_decay: float = 0.0
    clip_gradients: float = -1.0
    trust_coefficient: float = 0.001

    def text(self) -> str:
        """Return the fields as a solver file has them; float32 holds them all exactly enough."""
        names = ("base_lr", "momentum", "momentum2", "delta", "rms_decay", "weight_decay", "clip_gradients")
        return "".join(f"{name}: {getattr(self, name)!r}\n" for name in names)


@dataclass
class Weight:
    """One param: its value, lr_mult, decay_mult, and the history of its rule."""

    value: Array
    lr_mult: float
    decay_mult: float
    history: list[Array] = field(default_factory=list)


# (settings, weight, gradient, rate, decay that the rule takes itself, number of the update from 1) → new value;
# the histories are changed.
Rule = Callable[[Settings, Weight, Array, float, float, int], Array]


def sgd(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    w.history[0] = s.momentum * w.history[0] + rate * g
    return w.value - w.history[0]


def nesterov(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    old = w.history[0]
    new = w.history[0] = s.momentum * old + rate * g
    return w.value - ((1 + s.momentum) * new - s.momentum * old)


def ada_grad(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    w.history[0] = w.history[0] + g**2
    return w.value - rate * g / (np.sqrt(w.history[0]) + s.delta)


def rms_prop(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    w.history[0] = s.rms_decay * w.history[0] + (1 - s.rms_decay) * g**2
    return w.value - rate * g / (np.sqrt(w.history[0]) + s.delta)


def ada_delta(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    w.history[0] = s.momentum * w.history[0] + (1 - s.momentum) * g**2
    update = g * np.sqrt((w.history[1] + s.delta) / (w.history[0] + s.delta))
    w.history[1] = s.momentum * w.history[1] + (1 - s.momentum) * update**2
    return w.value - rate * update


def moments(s: Settings, w: Weight, g: Array) -> tuple[Array, Array]:
    w.history[0] = s.momentum * w.history[0] + (1 - s.momentum) * g
    w.history[1] = s.momentum2 * w.history[1] + (1 - s.momentum2) * g**2
    return w.history[0], w.history[1]


def adam(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    m, v = moments(s, w, g)
    correction = math.sqrt(1 - s.momentum2**t) / (1 - s.momentum**t)
    return w.value - rate * correction * m / (np.sqrt(v) + s.delta)


def adam_w(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    return adam(s, w, g, rate, 0, t) - rate * decay * w.value


def lars(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    size, slope = np.linalg.norm(w.value), np.linalg.norm(g)
    ratio = 1.0
    if w.value.ndim > 1 and size > 0 and slope > 0:
        ratio = float(s.trust_coefficient * size / (slope + decay * size + s.delta))
    return sgd(s, w, g + decay * w.value, rate * ratio, 0, t)


def lamb(s: Settings, w: Weight, g: Array, rate: float, decay: float, t: int) -> Array:
    m, v = moments(s, w, g)
    update = (m / (1 - s.momentum**t)) / (np.sqrt(v / (1 - s.momentum2**t)) + s.delta) + decay * w.value
    size, step = np.linalg.norm(w.value), np.linalg.norm(update)
    ratio = float(size / step) if w.value.ndim > 1 and size > 0 and step > 0 else 1.0
    return w.value - rate * ratio * update


def update_all(
    rule: Rule,
    settings: Settings,
    takes_decay: bool,
    weights: Sequence[Weight],
    gradients: Sequence[Array],
    iter_size: int,
    t: int,
) -> None:
    """Update all weights, in Caffe's order, by gradients that are sums over iter_size passes."""
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    limit = settings.clip_gradients
    clip = limit / norm if 0 <= limit < norm else 1.0
    for weight, gradient in zip(weights, gradients, strict=True):
        decay = settings.weight_decay * weight.decay_mult
        g = gradient * clip / iter_size
        if not takes_decay:
            g = g + decay * weight.value
        rate = settings.base_lr * weight.lr_mult
        weight.value = rule(settings, weight, g, rate, decay if takes_decay else 0.0, t)
