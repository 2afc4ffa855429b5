"""Adam: the mean gradient over the root of its mean square, both freed of their start at 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step, UpdateRule


@UPDATE_RULES.register("Adam")
class Adam(UpdateRule):
    """m ← momentum·m + (1 − momentum)·g;  v ← momentum2·v + (1 − momentum2)·g²;  with t = iteration + 1

        w ← w − rate·√(1 − momentum2^t) / (1 − momentum^t) · m / (√v + delta)

    (Kingma and Ba, 2014; delta stands beside the uncorrected √v). Follows caffe's adam_solver.cpp.
    """

    num_histories = 2

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the moments history[0] and history[1]."""
        gradient = self.regularise(data, diff, step)
        self.enter(gradient, history)
        mean, mean_square = history
        of_mean, of_square = self.corrections(step.iteration)
        change = np.sqrt(mean_square, out=gradient)
        change += self.solver.delta
        np.divide(mean, change, out=change)
        change *= step.rate * math.sqrt(of_square) / of_mean
        data -= change

    def enter(self, gradient: Array, history: Sequence[Array]) -> None:
        """Enter the gradient into both moments; uses it up."""
        mean, mean_square = history
        beta1, beta2 = self.solver.momentum, self.solver.momentum2
        scratch = np.multiply(gradient, 1 - beta1, out=self.scratch(gradient))
        mean *= beta1
        mean += scratch
        gradient *= gradient
        gradient *= 1 - beta2
        mean_square *= beta2
        mean_square += gradient

    def corrections(self, iteration: int) -> tuple[float, float]:
        """Return what the moments are short of at `iteration`: 1 − momentum^t and 1 − momentum2^t."""
        t = iteration + 1
        return 1 - self.solver.momentum**t, 1 - self.solver.momentum2**t
