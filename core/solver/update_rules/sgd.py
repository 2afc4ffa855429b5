"""SGD with momentum."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step, UpdateRule, number


@UPDATE_RULES.register("SGD")
class SGD(UpdateRule):
    """v ← momentum·v + rate·g;  w ← w − v. Follows caffe's sgd_solver.cpp."""

    spares_diff = True

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the velocity history[0]."""
        velocity = history[0]
        gradient = self.regularise(data, diff, step, step.rate)
        velocity *= number(self.solver.momentum, velocity)
        velocity += gradient
        data -= velocity
        if step.shows_change:
            diff[...] = velocity
