"""AdamW: Adam whose weight decay passes by the moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dtrain.core.solver.update_rules.adam import Adam
from dtrain.core.solver.update_rules.rule import UPDATE_RULES, Array, Step


@UPDATE_RULES.register("AdamW")
class AdamW(Adam):
    """w ← w − rate·decay·w, then as Adam by the gradient alone (Loshchilov and Hutter, 2017).

    Caffe has no such type.
    """

    takes_decay = True

    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and the moments history[0] and history[1]."""
        data *= 1 - step.rate * step.decay
        super().apply(data, diff, history, replace(step, decay=0.0))
