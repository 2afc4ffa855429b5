"""Nesterov's accelerated gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step, UpdateRule


@UPDATE_RULES.register("Nesterov")
class Nesterov(UpdateRule):
    """v' = momentum·v + rate·g;  w ← w − ((1 + momentum)·v' − momentum·v);  v ← v'.

    Follows caffe's nesterov_solver.cpp.
    """

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the velocity history[0]."""
        velocity, momentum = history[0], self.solver.momentum
        gradient = self.regularise(data, diff, step, step.rate)
        old = np.multiply(velocity, momentum, out=self.scratch(velocity))
        np.add(old, gradient, out=velocity)
        change = np.multiply(velocity, 1 + momentum, out=gradient)
        change -= old
        data -= change
