"""AdaDelta: the gradient in the units of the param, by the ratio of two root mean squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step, UpdateRule


@UPDATE_RULES.register("AdaDelta")
class AdaDelta(UpdateRule):
    """a ← momentum·a + (1 − momentum)·g²;  u = g·√((b + delta) / (a + delta));
    b ← momentum·b + (1 − momentum)·u²;  w ← w − rate·u (Zeiler, 2012). Follows caffe's adadelta_solver.cpp.
    """

    num_histories = 2

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the mean squares of gradients, history[0], and of updates, history[1]."""
        of_gradients, of_updates = history
        diff = self.regularise(data, diff, step)
        delta, scratch = self.solver.delta, self.scratch(diff)
        self._enter(diff, of_gradients, scratch)
        np.add(of_gradients, delta, out=scratch)
        np.sqrt(scratch, out=scratch)
        diff /= scratch
        np.add(of_updates, delta, out=scratch)
        np.sqrt(scratch, out=scratch)
        diff *= scratch
        self._enter(diff, of_updates, scratch)
        diff *= step.rate
        data -= diff

    def _enter(self, values: Array, mean_square: Array, scratch: Array) -> None:
        """Enter the squares of `values` into a running mean."""
        momentum = self.solver.momentum
        np.multiply(values, values, out=scratch)
        scratch *= 1 - momentum
        mean_square *= momentum
        mean_square += scratch
