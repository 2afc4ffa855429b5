"""The updater where params lie in a GPU's memory: a bucket in one launch, clipping without a look from the host.

Beside updater.py, whose schedule, histories and log it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.engines.cupy.devices import open_cupy
from dtrain.core.engines.cupy.gradient_control import LOSS_SCALE, NORM, NUM_GOOD, NUM_SKIPPED, GradientControl
from dtrain.core.engines.cupy.update import ArenaUpdate, can_fuse
from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param, trainable
from dtrain.core.snapshots.manifest import LossScaleState
from dtrain.core.solver.loss_scale import GROWTH_INTERVAL, LossScale
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
        self._control: GradientControl | None = None
        self._norm = GradientControl(self._cupy)
        self._mean = 1.0  # what sums over ranks are multiplied by, always the same
        learned = trainable(arena.params)
        multipliers = [self._multipliers(param) for param in learned]
        if can_fuse(self.rule, multipliers):
            places = [arena.place_in_data[id(param)] for param in learned]
            self._fused = ArenaUpdate(self._cupy, self.rule, arena.data.size, places, multipliers)
            if solver.clip_gradients >= 0:
                self._control = self._make_control(self._fused)

    def use_loss_scale(self, xp: Any) -> Any:
        """Divide diffs by a loss scale from now on, which is looked after on the GPU where there is a kernel."""
        if self._fused is None:
            return super().use_loss_scale(xp)
        self._control = self._make_control(self._fused, LossScaleState().value, GROWTH_INTERVAL)
        self.loss_scale = _LossScaleThere(self._control)
        return self.loss_scale.array

    def _make_control(self, fused: ArenaUpdate, *loss_scale: Any) -> GradientControl:
        """Let what looks at all gradients control the update; loss_scale: as GradientControl takes it."""
        control = GradientControl(self._cupy, self.solver.clip_gradients, *loss_scale)
        control.non_finite = fused.non_finite
        fused.control = control.control
        return control

    @property
    def not_captured_because(self) -> str:
        """Why updates can't be part of a captured graph, in words; "" if they can."""
        if self._fused is None:
            return f"updates of type {self.solver.type} are told by the host what each param needs"
        return "debug_info shows each update" if self.debug_info else ""

    def begin(self, iteration: int, world_size: int) -> None:
        """Begin the update of `iteration`; the diffs are sums as for `apply`, or will be when `update` has them."""
        if self._fused is None:
            super().begin(iteration, world_size)
            return
        self.send(iteration, world_size)
        self.enqueue_control()

    def send(self, iteration: int, world_size: int) -> None:
        """Do the host's part of `begin`: tell the device what updates of `iteration` compute with.

        In front of the replay of a captured graph, which has the rest. There must be kernels for the rule.
        """
        assert self._fused is not None
        self._log_step(iteration)
        self._iteration, self._rate = iteration, self.rate(iteration)
        self._mean = 1.0 / world_size
        self._scale = self._mean / self.solver.iter_size
        self._fused.begin(Step(self._rate, iteration, self.solver.weight_decay, self._scale))

    def enqueue_control(self) -> None:
        """Do the device's part of `begin`, once all diffs are sums: what they decide together, if anything."""
        if self._control is not None:
            self.arena.update_reduced()
            self._control.run(self.arena.diff, self._mean)

    def use_non_finite(self, values: Any) -> None:
        """Leave updates out, on the device, where `values`, float32 (1,) there, is not 0 when they run.

        It is the number of ranks whose loss is not finite. The loss scale and its count stay too: they are for
        gradients that are not finite though the loss is.
        """
        assert self._fused is not None
        self._fused.non_finite = values
        if self._control is not None:
            self._control.non_finite = values

    def _gradient_norm(self) -> float:
        """Return the L2 norm of all diffs, which the host waits for."""
        self.arena.update_reduced()
        self._norm.run(self.arena.diff)
        return float(self._norm.control.get()[NORM])

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


class _LossScaleThere(LossScale):
    """The loss scale of a control, to which it leaves all; reading its state waits for the GPU."""

    def __init__(self, control: GradientControl) -> None:
        self.array = control.loss_scale
        self._control = control

    @property
    def state(self) -> LossScaleState:
        found = self._control.control.get()
        return LossScaleState(float(found[LOSS_SCALE]), int(found[NUM_GOOD]), int(found[NUM_SKIPPED]))

    @state.setter
    def state(self, state: LossScaleState) -> None:
        self._control.take_up(state.value, state.num_finite, state.num_left_out)
