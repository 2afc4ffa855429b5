"""The update on a GPU: all params of the arena in one launch, by the rules of core/solver/update_rules.

In the flow net → solver → communicator this stands where a rule's `apply` stands on the host. What changes from
iteration to iteration lies in device memory, so that a captured graph can be replayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.engines.cupy.kernels import Kernel
from dtrain.core.engines.cupy.sending import Sender
from dtrain.core.solver.update_rules.adam import Adam
from dtrain.core.solver.update_rules.rule import Step, UpdateRule
from dtrain.dist.memory import ALIGNMENT_BYTES

Multipliers = tuple[float, float]  # of the rate, of the decay
Factors = tuple[float, float, float, float]  # of the diff and the decay; the rate; of the data, before

LINE_SIZE = ALIGNMENT_BYTES // 4  # values of float32: each param in the arena starts on a line of so many
NOBODY = 255  # as in update.cu: the group of lines that are not to be changed
_FOUR = 4  # values that a thread has


@dataclass(frozen=True)
class _Fused:
    """How the kernel of a solver type is told what the rule computes with.

    constants: the first of update.cu's Constants, of the rule. factors: of a group of params, in an iteration.
    """

    kernel: str
    constants: Callable[[Any], Sequence[float]]
    factors: Callable[[UpdateRule, Step], Factors]


def _with_rate(_: UpdateRule, step: Step) -> Factors:
    return step.scale * step.rate, step.decay * step.rate, 0.0, 1.0


def _beside_rate(_: UpdateRule, step: Step) -> Factors:
    return step.scale, step.decay, step.rate, 1.0


def _corrected(rule: UpdateRule, step: Step) -> Factors:
    assert isinstance(rule, Adam)
    of_mean, of_square = rule.corrections(step.iteration)
    return step.scale, step.decay, step.rate * math.sqrt(of_square) / of_mean, 1.0


def _decoupled(rule: UpdateRule, step: Step) -> Factors:
    scale, _, rate, _ = _corrected(rule, step)
    return scale, 0.0, rate, 1 - step.rate * step.decay


def _constants_of_adam(solver: Any) -> Sequence[float]:
    beta1, beta2 = solver.momentum, solver.momentum2
    return beta1, 1 - beta1, beta2, 1 - beta2, solver.delta


FUSED: Mapping[str, _Fused] = {
    "SGD": _Fused("update_sgd", lambda solver: (solver.momentum,), _with_rate),
    "Nesterov": _Fused("update_nesterov", lambda solver: (solver.momentum, 1 + solver.momentum), _with_rate),
    "AdaGrad": _Fused("update_adagrad", lambda solver: (solver.delta,), _beside_rate),
    "RMSProp": _Fused(
        "update_rmsprop",
        lambda solver: (solver.rms_decay, 1 - solver.rms_decay, solver.delta),
        _beside_rate,
    ),
    "AdaDelta": _Fused(
        "update_adadelta",
        lambda solver: (solver.momentum, 1 - solver.momentum, solver.delta),
        _beside_rate,
    ),
    "Adam": _Fused("update_adam", _constants_of_adam, _corrected),
    "AdamW": _Fused("update_adam", _constants_of_adam, _decoupled),
}


def can_fuse(rule: UpdateRule, multipliers: Sequence[Multipliers]) -> bool:
    """Return whether there is a kernel for `rule`, and params have few enough different `multipliers` for it."""
    return rule.solver.type in FUSED and len(set(multipliers)) <= NOBODY


class ArenaUpdate:
    """Changes the learned params of an arena as a rule does, to the same bits.

    factors: float32 (number of different multipliers, 4), what the kernel reads of an iteration. control: float32
    (2,) or more: by what every diff is multiplied beside (1), and whether the update is left out (0); let the
    `control` of a GradientControl take its place for clipping and for a loss scale. non_finite: float32 (1,), the
    update is left out too if it is not 0: how many ranks have a loss that is not finite, say.

    Arguments:
        cupy: the module. rule: one that can be fused; its solver's fields are read. size: of the arena's data.
        places: where each learned param is in there, from the beginning of a line. multipliers: those of each, of the
            rate and of weight_decay.
    """

    def __init__(
        self,
        cupy: Any,
        rule: UpdateRule,
        size: int,
        places: Sequence[slice],
        multipliers: Sequence[Multipliers],
    ) -> None:
        self._rule = rule
        self._fused = FUSED[rule.solver.type]
        self._kernel = Kernel(cupy, self._fused.kernel, "update")
        constants = np.zeros(5, np.float32)
        given = self._fused.constants(rule.solver)
        constants[: len(given)] = given
        self._constants = list(constants)
        self._is_l1 = np.int32(rule.solver.regularization_type == "L1")
        self._groups = sorted(set(multipliers))
        group_of_line = np.full(-(-size // LINE_SIZE), NOBODY, np.uint8)
        for place, mine in zip(places, multipliers, strict=True):
            lines = slice(place.start // LINE_SIZE, -(-place.stop // LINE_SIZE))
            group_of_line[lines] = self._groups.index(mine)
        self._group_of_line = cupy.asarray(group_of_line)
        self.factors = cupy.zeros((len(self._groups), 4), np.float32)
        self._factors = Sender(cupy, self.factors)
        self.control = cupy.asarray(np.array([1, 0], np.float32))
        self.non_finite = cupy.zeros(1, np.float32)

    def factors_of(self, step: Step) -> NDArray[np.float32]:
        """Return what `factors` must be for an iteration.

        step: of a param whose multipliers are 1; so the rate is the learning rate and the decay weight_decay.
        """
        steps = [
            Step(step.rate * of_rate, step.iteration, step.decay * of_decay, step.scale)
            for of_rate, of_decay in self._groups
        ]
        rows = [self._fused.factors(self._rule, each) for each in steps]
        return np.array(rows, np.float32).reshape(-1, 4)

    def begin(self, step: Step) -> None:
        """Send the factors of an iteration to the device, behind what it was given before."""
        self._factors.send(self.factors_of(step))

    def run(
        self,
        data: Any,
        diff: Any,
        histories: Sequence[Any],
        part: slice | None = None,
        shows_change: bool = True,
    ) -> None:
        """Change data and histories in place by the gradients; nothing if `control` or `non_finite` says so.

        Arguments:
            data, diff, histories: float32 (size,), on the device, from the beginning of a line.
            part: of them, from the beginning of a param to the end of one; None: all.
            shows_change: whether the diffs become what is taken off the data; else they are only read.
        """
        start, stop, _ = (part or slice(None)).indices(data.size)
        num_fours = -(-(stop - start) // LINE_SIZE) * (LINE_SIZE // _FOUR)
        self._kernel.run(
            num_fours,
            *(data, diff, histories[0], histories[-1]),
            *(self._group_of_line, self.factors, self.control, self.non_finite),
            *(np.int64(start // _FOUR), np.int64(num_fours)),
            *(self._is_l1, np.int32(shows_change)),
            *self._constants,
        )
