"""LARS: SGD whose rate suits the size of each param and of its gradient, for large batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step
from dtrain.core.solver.update_rules.sgd import SGD
from dtrain.core.solver.update_rules.trust_ratio import norms_to_compare


@UPDATE_RULES.register("LARS")
class LARS(SGD):
    """r = trust_coefficient·|w| / (|g| + decay·|w| + delta);  v ← momentum·v + rate·r·(g + decay·w);  w ← w − v

    (You et al., 2017). |·| is the L2 norm over a param, g the gradient before decay. r is 1 for params of one
    axis and where a norm is 0. Caffe has no such type.
    """

    takes_decay = True
    elementwise = False
    spares_diff = False  # params come as a whole, and so would the memory of its own

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the velocity history[0]."""
        diff = self.regularise(data, diff, replace(step, decay=0.0))
        sizes, ratio = norms_to_compare(data, diff), 1.0
        if sizes is not None:
            coefficient = self.solver.dtrain_param.trust_coefficient
            ratio = coefficient * sizes[0] / (sizes[1] + step.decay * sizes[0] + self.solver.delta)
        super().apply(data, diff, history, replace(step, rate=step.rate * ratio, scale=1.0))
