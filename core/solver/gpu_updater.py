"""The updater where params lie in a GPU's memory: a bucket in one launch, clipping without a look from the host.

Beside updater.py, whose schedule, histories and log it has.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.engines.cupy.devices import open_cupy
from dtrain.core.engines.cupy.gradient_control import GradientControl
from dtrain.core.engines.cupy.update import ArenaUpdate, can_fuse
from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param, trainable
from dtrain.core.solver.update_rules.rule import Step
from dtrain.core.solver.updater import UPDATERS, Updater
from dtrain.proto import caffe_pb2


@UPDATERS.register("device")
class GpuUpdater(Updater):
    """Applies gradients to the learned params of one net, all of which are in an arena on the GPU.

    Rules that look at a whole param (LARS, LAMB) run as on the host, param by param.
    """

    def __init__(self, solver: caffe_pb2.SolverParameter, params: Sequence[Param], arena: Arena) -> None:
        super().__init__(solver, params, arena, num_threads=1)
        self._cupy = open_cupy()
        self._fused: ArenaUpdate | None = None
        self._control: GradientControl | None = None  # is told by what sums become means, always the same
        learned = trainable(arena.params)
        multipliers = [self._multipliers(param) for param in learned]
        if can_fuse(self.rule, multipliers):
            places = [arena.place_in_data[id(param)] for param in learned]
            self._fused = ArenaUpdate(self._cupy, self.rule, arena.data.size, places, multipliers)

    def begin(self, iteration: int, world_size: int) -> None:
        """Begin the update of `iteration`; the diffs are sums as for `apply`, or will be when `update` has them."""
        super().begin(iteration, world_size)
        if self._fused is not None:
            self._fused.begin(Step(self._rate, iteration, self.solver.weight_decay, self._scale))

    def _clipped_scale(self, scale: float) -> float:
        """Return `scale`; where a limit is set and there is a kernel, what clips is left on the GPU, for that."""
        if self.solver.clip_gradients < 0 or self._fused is None:
            return super()._clipped_scale(scale)
        self.arena.update_reduced()
        if self._control is None:
            self._control = GradientControl(self._cupy, scale, self.solver.clip_gradients)
            self._fused.control = self._control.control
        self._control.run(self.arena.diff)
        return scale

    def _update(self, params: Sequence[Param]) -> None:
        if self._fused is None:
            super()._update(params)
            return
        learned = trainable(params)  # a bucket, all or one: they lie together
        places = [self.arena.place_in_data[id(param)] for param in learned]
        for param in learned:
            param.blob.update_data(self.arena.memory)
        if places:
            part = slice(min(place.start for place in places), max(place.stop for place in places))
            self._fused.run(
                self.arena.data, self.arena.diff, self._histories, part, shows_change=self._shows_change
            )
