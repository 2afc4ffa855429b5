"""The solver: one training run, iteration by iteration, on this rank.

    prototxt ──> graph ──> net ──> solver ──> communicator ──> snapshot

Each iteration: (test) → iter_size × forward and backward, during the last of which the diffs are summed over all
ranks → (display) → update, bucket by bucket → (snapshot). Follows caffe's solver.cpp, in its order, so that test
and display at iteration k see the params after k updates. Every rank runs the same iterations; what one rank is
asked for (stop, snapshot) or finds wrong (a loss that is no number) travels with the gradients, so that all ranks
act on it after the same iteration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from dtrain.core.engines import Engine
from dtrain.core.errors import UserError
from dtrain.core.net.arena import Arena
from dtrain.core.net.carried_state import states_put_back
from dtrain.core.net.debug_info import set_debug_info
from dtrain.core.net.loss_scaling import scale_gradients
from dtrain.core.net.scores import Score
from dtrain.core.snapshots import Manifest
from dtrain.core.solver.display import Display
from dtrain.core.solver.extra_values import NUM_EXTRA, Extra
from dtrain.core.solver.gradient_exchange import make_exchange
from dtrain.core.solver.iteration import ITERATIONS
from dtrain.core.solver.keeper import make_keeper
from dtrain.core.solver.lockstep import (
    agree_on_seed,
    average_losses,
    average_statistics,
    broadcast_params,
    digest_of,
)
from dtrain.core.solver.loss_window import LossWindow
from dtrain.core.solver.lr_scaling import rate_factor
from dtrain.core.solver.monitor import Monitor
from dtrain.core.solver.nets import load_into, make_nets
from dtrain.core.solver.non_finite import check_params_finite
from dtrain.core.solver.notes import log_notes
from dtrain.core.solver.observer import Observer
from dtrain.core.solver.param_guard import check_params_equal
from dtrain.core.solver.place import (
    beginning_epoch,
    describe_place,
    epochs_done,
    go_to_iteration,
    go_to_place,
    warn_of_forgotten,
)
from dtrain.core.solver.recipe import Recipe
from dtrain.core.solver.testing import Tester
from dtrain.core.solver.updater import UPDATERS
from dtrain.core.solver.weight_average import WeightAverage
from dtrain.core.tensor import HOST
from dtrain.data.errors import DataError
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import Communicator
from dtrain.dist.guard import agree, together
from dtrain.dist.wire import Wire
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


class Solver:
    """Trains the net of `recipe` on this rank.

    iter: the number of updates done. net, test_nets: the nets, whose params are shared. losses: the window of
    the smoothed loss on this rank. stopped_early: whether a request ended the run. seed: random_seed, or one
    that rank 0 drew. activity: what this rank is doing, kept up to date for the line of a failure. callbacks:
    pairs of functions to be called before an iteration's first forward, and once its gradients are there, on
    this rank alone.

    Arguments:
        wire: what gradients travel as, for a compression of one's own; by default as dtrain_param says.

    Making one is collective: nets are built on all ranks, compared, and the params of rank 0 broadcast.
    Raises UserError (or DataError) on one rank; on several, dist's AgreedFailure on all if any has one.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        engine: Engine,
        communicator: Communicator,
        observers: Sequence[Observer] = (),
        activity: Activity | None = None,
        wire: Wire | None = None,
    ) -> None:
        self.recipe = recipe
        self.param: caffe_pb2.SolverParameter = recipe.solver
        self.engine = engine
        self.communicator = communicator
        self.observers = observers
        self.activity = activity if activity is not None else Activity()
        self.callbacks: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self.iter = 0
        self.stopped_early = False
        self.losses = LossWindow(self.param.average_loss)
        self.activity.doing = "building the nets"
        communicator.ordered_sums = self.param.dtrain_param.ordered_sums
        self.seed = agree_on_seed(self.param.random_seed, communicator)
        agree(communicator, "net and solver", digest_of(recipe))
        together(communicator, self._build_nets, (UserError, DataError))
        self.arena = Arena(
            self.net.param_table.with_gradients,
            NUM_EXTRA,
            communicator.allocate,
            engine.memory if communicator.takes_device_arrays else HOST,
        )
        self.exchange = make_exchange(self.net, self.arena, communicator, self.param, wire)
        together(communicator, self._build_rest, (UserError, DataError))
        self.broadcast_params()
        log_notes(recipe)

    def fuse(self) -> None:
        """Run layers of the nets as one from now on where that is faster, unless debug_info is to show each.

        For runs whose nets nobody looks into; see Net.fuse.
        """
        if not self.param.debug_info:
            for net in (self.net, *self.test_nets):
                net.fuse()

    def capture(self) -> None:
        """Let a GPU be given whole iterations in one launch from now on, if they can be; else the log says why."""
        self.iteration.captures = True
        if self.engine.memory.has_addresses and self.arena.memory is HOST:
            log.info(
                "Each layer is launched by itself: communicator %s sums on the host", self.communicator.name
            )

    def _build_nets(self) -> None:
        recipe, communicator = self.recipe, self.communicator
        if self.engine.precision != recipe.precision:
            raise UserError(
                f"{recipe.path}: precision must be what engine {self.engine.name} was made for, "
                f"{self.engine.precision}, got {recipe.precision}; create_engine(name, recipe.precision)"
            )
        self.net, self.test_nets = make_nets(recipe, self.engine, communicator, self.seed, self.activity)

    def _build_rest(self) -> None:
        param, recipe, communicator = self.param, self.recipe, self.communicator
        self.updater = UPDATERS[self.arena.memory.name](param, self.net.learnable_params, self.arena)
        self.updater.rate_factor = rate_factor(param, self.net)
        if recipe.precision == "FLOAT16":
            scale_gradients(self.net, self.updater.use_loss_scale(self.engine.xp))
        self.average = WeightAverage(self.arena, param.dtrain_param.ema_decay)
        self.iteration = ITERATIONS[self.arena.memory.name](
            self.net, self.exchange, self.updater, self.average, self.losses, self.communicator
        )
        self.tester = Tester(self.test_nets, param, communicator)
        where = recipe.document.where("dtrain_param", "monitor", "output")
        self.monitor = Monitor(param, self.test_nets, communicator, where)
        self.display = Display(self.net, communicator, param.display)
        self.keeper = make_keeper(recipe, self.net, self.updater.history, self.average, communicator)
        self._set_debug_info(False)  # whatever the net's own file says
        for net in self.test_nets:
            set_debug_info(net, param.debug_info and communicator.rank == 0)

    # -- the state of the run -------------------------------------------------------------------------------

    @property
    def max_iter(self) -> int:
        """The iteration at which the run ends."""
        return self.param.max_iter

    @property
    def smoothed_loss(self) -> float:
        """The mean of the last average_loss losses of this rank."""
        return self.losses.mean

    @property
    def learning_rate(self) -> float:
        """The rate of the next update."""
        return self.updater.rate(self.iter)

    @property
    def current_step(self) -> int:
        """How many steps the policies multistep and plateau have gone down."""
        return self.updater.current_step(self.iter)

    @property
    def epoch(self) -> int:
        """How many times all records of the first reading layer have been read."""
        return epochs_done(self.net)

    # -- running --------------------------------------------------------------------------------------------

    def solve(self) -> None:
        """Train to max_iter, to a stop or until the monitor gives up; test, show and snapshot. Collective."""
        self.stopped_early = False
        if self.param.snapshot or self.param.snapshot_after_train or self.param.dtrain_param.keep_best:
            self.keeper.probe(self.param.snapshot_diff)
        log.info("Solving %s", self.net.name)
        log.info("Learning Rate Policy: %s", self.param.lr_policy)
        self._tell("on_start")
        self._run(self.max_iter - self.iter, may_give_up=True)
        self._finish()
        self._tell("on_end")

    def step(self, num_iterations: int) -> None:
        """Train `num_iterations` iterations; the smoothed loss starts anew, as in Caffe. Collective."""
        self.losses.restart()
        self._run(num_iterations)

    def request_stop(self) -> None:
        """Ask all ranks to stop after the iteration under way. Not collective; safe in a signal handler."""
        self.iteration.requests.ask(Extra.STOP)

    def request_snapshot(self) -> None:
        """Ask for a snapshot after the iteration under way. Not collective; safe in a signal handler."""
        self.iteration.requests.ask(Extra.SNAPSHOT)

    def _run(self, num_iterations: int, may_give_up: bool = False) -> None:
        self.display.start_lap(self.iter)
        for layer in self.net.reading_layers:
            if not layer.started:
                layer.start(self.iter * self.param.iter_size * layer.records_per_pass)
        end = self.iter + num_iterations
        self.iteration.pace.restart()
        while self.iter < end and not self.stopped_early:
            self.activity.iteration = self.iter
            if self.tester.is_due(self.iter) and (self.iter > 0 or self.param.test_initialization):
                self._test()
                self.iteration.pace.restart()
            if may_give_up and self.monitor.has_given_up:
                break
            self._iterate()
        self.iteration.settle()

    def _iterate(self) -> None:
        shown = self.display.is_due(self.iter)
        if self.param.debug_info:
            self._set_debug_info(shown)
        epoch = beginning_epoch(self.net, self.param.iter_size)
        if epoch is not None:
            self.display.show_epoch(self.iter, epoch)
            self._tell("on_epoch", epoch)
        self.iteration.forward_backward(self.iter, self.callbacks)
        if shown:
            self.display.show(self.iter, self.smoothed_loss, self.learning_rate)
        for _, on_gradients_ready in self.callbacks:
            on_gradients_ready()
        self.apply_update()
        if shown:
            self.display.show_loss_scale(self.updater.loss_scale_state)
        interval = self.param.dtrain_param.check_interval
        if interval and self.iter % interval == 0:
            check_params_equal(self.net.learnable_params, self.iter, self.communicator)
        self._tell("on_iteration")
        self._handle_requests()

    def apply_update(self) -> None:
        """Sum the diffs over all ranks, update the params by them and count the iteration. Collective."""
        self.iteration.update(self.iter)
        self.iter += 1

    def _handle_requests(self) -> None:
        """Do what any rank was asked for; every rank sees the same sums, hence does the same."""
        self.keeper.poll()
        self.stopped_early |= bool(self.arena.extra[Extra.STOP])
        if self._snapshot_is_due() or self.arena.extra[Extra.SNAPSHOT]:
            self.snapshot()

    def _snapshot_is_due(self) -> bool:
        return self.param.snapshot > 0 and self.iter % self.param.snapshot == 0

    def _set_debug_info(self, on: bool) -> None:
        """Let rank 0 log the sizes of its values in the iteration to come, as Caffe does where it displays."""
        self.updater.debug_info = on and self.communicator.rank == 0
        set_debug_info(self.net, self.updater.debug_info)

    def _finish(self) -> None:
        """End a run as Caffe does: snapshot, then the last loss and the last test."""
        self.activity.iteration = self.iter
        if self.param.snapshot_after_train and not self._snapshot_is_due():
            self.snapshot()
        self._finish_snapshot()
        if self.stopped_early:
            log.info("Optimization stopped early.")
            return
        # The last loss reads a batch that a resumed run must read too: the place to keep is the one before.
        place = self._describe() if self.param.dtrain_param.keep_best else None
        if self.display.is_due(self.iter):
            # Nor may what the pass moves (running statistics) be in a snapshot of the last test.
            with states_put_back(self.net) if place else nullcontext():
                self.losses.add(self.net.forward())
            self.display.show_loss(self.iter, self.smoothed_loss)
        if self.monitor.has_given_up:
            log.info("Ending at iteration %d: %s", self.iter, self.monitor.describe())
        elif self.tester.is_due(self.iter):
            self._test(place)
        self._finish_snapshot()
        log.info("Optimization Done.")

    def _finish_snapshot(self) -> None:
        """Wait for the snapshot under way."""
        self.activity.doing = "writing a snapshot"
        self.keeper.finish()

    def test_all(self) -> list[list[Score]]:
        """Run every test net over its test_iter batches and return the scores. Collective.

        With ema_decay the nets have the averaged weights meanwhile.
        """
        self.iteration.settle()
        average_statistics(self.net.learnable_params, self.communicator)
        with self.average.shown():
            return self.tester.run_all(self.iter, lambda index, scores: self._tell("on_test", index, scores))

    def _test(self, place: Manifest | None = None) -> None:
        """Run the test that is due; keep the weights if it is the best so far. place: as for _write_snapshot."""
        is_best = self.monitor.enter(self.iter, self.test_all())
        self.updater.num_reductions = self.monitor.state.num_reductions
        to_keep = is_best and self.param.dtrain_param.keep_best
        if to_keep and not self.keeper.mark_best(self.iter, self.monitor.state):
            place = replace(place or self._describe(), monitor=self.monitor.state, is_best=True, is_due=False)
            self._write_snapshot(place)

    # -- params, weights and snapshots ------------------------------------------------------------------------

    def broadcast_params(self) -> None:
        """Give every rank the params of rank 0. Collective."""
        broadcast_params(self.net.learnable_params, self.arena, self.communicator)

    def load_weights(self, paths: Sequence[str]) -> None:
        """Start from the weights of one or more .caffemodel files, which rank 0 reads. Collective.

        They go into the test nets too, which may have layers of their own. Raises UserError for a file that is
        damaged or of another net.
        """
        self.activity.doing = "loading weights"
        load_into(self.net, self.test_nets, paths, self.communicator)
        self.broadcast_params()

    def restore(self, path: str) -> None:
        """Take up the run of a snapshot (.solverstate). Collective. Raises UserError; then nothing has changed."""
        self.activity.doing = "restoring a snapshot"
        restored = self.keeper.read(path, self.param.type)
        warn_of_forgotten(self.net)
        self.broadcast_params()
        self.iter = restored.iteration
        if restored.manifest is None:
            go_to_iteration(self.iter, self.param.iter_size, self.net, self.losses)
        else:
            self.seed = restored.manifest.seed
            go_to_place(restored.manifest, self.net, self.test_nets, self.losses)
            self.updater.take_up(restored.manifest.loss_scale)
        self.monitor.take_up(restored.manifest, restored.current_step)
        self.updater.num_reductions = self.monitor.state.num_reductions

    def resume_newest(self) -> str | None:
        """Take up the newest good snapshot of this solver's prefix; return its path, or None. Collective."""
        path = self.keeper.newest()
        if path is not None:
            self.restore(path)
        return path

    def snapshot(self) -> str:
        """Write a snapshot of now; return the path of its .solverstate. Collective; rank 0 writes."""
        self.iteration.settle()
        return self._write_snapshot(self._describe())

    def _describe(self) -> Manifest:
        """Return what a snapshot of now keeps beside Caffe's files. Collective."""
        average_statistics(self.net.learnable_params, self.communicator)
        # Rank 0's window is what is kept: it must be everybody's, or a resumed run would show another loss.
        average_losses(self.losses, self.communicator)
        place = describe_place(self.net, self.losses, self.iter, self.current_step)
        place = replace(place, monitor=self.monitor.state, loss_scale=self.updater.loss_scale_state)
        return replace(place, num_averaged=self.average.num_updates, solver_type=self.param.type)

    def _write_snapshot(self, place: Manifest) -> str:
        self.activity.doing = "writing a snapshot"
        self.iteration.pace.restart()
        params = self.net.learnable_params
        together(self.communicator, lambda: check_params_finite(params, self.iter), (UserError,))
        path = self.keeper.write(place, self.param.snapshot_diff)
        self._tell("on_snapshot", path)
        return path

    def close(self) -> None:
        """Stop the threads of readers and updates and wait for a snapshot under way."""
        self._finish_snapshot()
        self.updater.close()
        self.iteration.close()
        for net in [self.net, *self.test_nets]:
            net.close()

    def _tell(self, event: str, *details: Any) -> None:
        for observer in self.observers:
            getattr(observer, event)(self, *details)
