"""LAMB: Adam whose steps suit the size of each param, for large batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dtrain.core.solver.update_rules.adam import Adam
from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step
from dtrain.core.solver.update_rules.trust_ratio import norms_to_compare


@UPDATE_RULES.register("LAMB")
class LAMB(Adam):
    """With Adam's moments m and v and t = iteration + 1,

        u = m / (1 − momentum^t) / (√(v / (1 − momentum2^t)) + delta) + decay·w;  w ← w − rate·|w|/|u|·u

    (You et al., 2019). |·| is the L2 norm over a param; their ratio is 1 for params of one axis and where a
    norm is 0. Caffe has no such type.
    """

    takes_decay = True
    elementwise = False

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the moments history[0] and history[1]."""
        diff = self.regularise(data, diff, replace(step, decay=0.0))
        self.enter(diff, history)
        mean, mean_square = history
        of_mean, of_square = self.corrections(step.iteration)
        scratch = np.divide(mean_square, of_square, out=self.scratch(diff))
        np.sqrt(scratch, out=scratch)
        scratch += self.solver.delta
        np.divide(mean, of_mean, out=diff)
        diff /= scratch
        if step.decay:
            diff += np.multiply(data, step.decay, out=scratch)
        sizes = norms_to_compare(data, diff)
        diff *= step.rate * (sizes[0] / sizes[1] if sizes else 1.0)
        data -= diff
