"""AdaGrad: each value's rate falls with the gradients that it has seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step, UpdateRule


@UPDATE_RULES.register("AdaGrad")
class AdaGrad(UpdateRule):
    """h ← h + g²;  w ← w − rate·g / (√h + delta) (Duchi et al., 2011). Follows caffe's adagrad_solver.cpp."""

    refuses_momentum = True

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the sum of squares history[0]."""
        squares = history[0]
        diff = self.regularise(data, diff, step)
        scratch = np.multiply(diff, diff, out=self.scratch(diff))
        squares += scratch
        np.sqrt(squares, out=scratch)
        scratch += self.solver.delta
        diff *= step.rate
        diff /= scratch
        data -= diff
