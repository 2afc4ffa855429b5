"""RMSProp: the gradient over its own root mean square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step, UpdateRule
from dtrain.proto import caffe_pb2


@UPDATE_RULES.register("RMSProp")
class RMSProp(UpdateRule):
    """h ← rms_decay·h + (1 − rms_decay)·g²;  w ← w − rate·g / (√h + delta) (Tieleman and Hinton, 2012).

    Follows caffe's rmsprop_solver.cpp.
    """

    refuses_momentum = True

    @classmethod
    def mistakes(cls, solver: caffe_pb2.SolverParameter) -> list[tuple[str, str]]:
        """Return what is wrong with the fields: rms_decay must be in [0, 1)."""
        found = super().mistakes(solver)
        if not 0 <= solver.rms_decay < 1:
            found.append(
                ("rms_decay", f"rms_decay must be at least 0 and less than 1, got {solver.rms_decay:g}")
            )
        return found

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the mean square history[0]."""
        mean_square, decay = history[0], self.solver.rms_decay
        diff = self.regularise(data, diff, step)
        scratch = np.multiply(diff, diff, out=self.scratch(diff))
        scratch *= 1 - decay
        mean_square *= decay
        mean_square += scratch
        np.sqrt(mean_square, out=scratch)
        scratch += self.solver.delta
        diff *= step.rate
        diff /= scratch
        data -= diff
