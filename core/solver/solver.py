"""The solver: one training run, iteration by iteration, on this rank.

    prototxt ──> graph ──> net ──> solver ──> communicator ──> snapshot

Each iteration: (test) → iter_size × forward and backward → (display) → all-reduce of the diffs → update →
(snapshot). Follows caffe's solver.cpp, in its order, so that test and display at iteration k see the params
after k updates. Every rank runs the same iterations; what one rank is asked for (stop, snapshot) travels with
the gradients, so that all ranks do it after the same iteration.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from dtrain.core.engines import Engine
from dtrain.core.errors import Problems, UserError
from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.net.arena import Arena
from dtrain.core.net.building import build_net
from dtrain.core.net.net import Net
from dtrain.core.net.params import trainable
from dtrain.core.net.scores import Score
from dtrain.core.net.weights import copy_weights
from dtrain.core.snapshots import SnapshotStore, load_weights
from dtrain.core.solver.display import Display
from dtrain.core.solver.keeper import Keeper, snapshot_prefix
from dtrain.core.solver.lockstep import (
    agree_on_seed,
    average_statistics,
    broadcast_params,
    digest_of,
    mean_over_ranks,
)
from dtrain.core.solver.loss_window import LossWindow
from dtrain.core.solver.lr_policies import multistep_index
from dtrain.core.solver.place import describe_place, epochs_done, go_to_iteration, go_to_place
from dtrain.core.solver.recipe import Recipe, snapshot_format
from dtrain.core.solver.testing import Tester
from dtrain.core.solver.updater import Updater
from dtrain.data.errors import DataError
from dtrain.data.loader import Deal
from dtrain.data.sampler import Shard
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import Communicator
from dtrain.dist.guard import agree, together
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

STOP, SNAPSHOT = 0, 1  # the places of the requests in the arena's extra values


class Observer(Protocol):
    """Who is told how a run goes (the progress line, say). Calls come on every rank."""

    def on_start(self, solver: Solver) -> None:
        """Training is about to begin (or to go on)."""

    def on_iteration(self, solver: Solver) -> None:
        """An iteration is done; solver.iter counts it already."""

    def on_test(self, solver: Solver, net_index: int, scores: Sequence[Score]) -> None:
        """A test net has been run."""

    def on_snapshot(self, solver: Solver, path: str) -> None:
        """A snapshot is being written."""

    def on_end(self, solver: Solver) -> None:
        """Training has ended."""


class Solver:
    """Trains the net of `recipe` on this rank.

    iter: the number of updates done. net, test_nets: the nets, whose params are shared. losses: the window of
    the smoothed loss on this rank. stopped_early: whether a request ended the run. seed: random_seed, or one
    that rank 0 drew. activity: what this rank is doing, kept up to date for the line of a failure.

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
    ) -> None:
        self.recipe = recipe
        self.param: caffe_pb2.SolverParameter = recipe.solver
        self.engine = engine
        self.communicator = communicator
        self.observers = observers
        self.activity = activity if activity is not None else Activity()
        self.iter = 0
        self.stopped_early = False
        self.losses = LossWindow(self.param.average_loss)
        self._requests = np.zeros(2, np.float32)
        self.activity.doing = "building the nets"
        self.seed = agree_on_seed(self.param.random_seed, communicator)
        agree(communicator, "net and solver", digest_of(recipe))
        together(communicator, self._build, (UserError, DataError))
        self.broadcast_params()

    def _build(self) -> None:
        self.net, *self.test_nets = self._make_nets()
        self.arena = Arena(trainable(self.net.learnable_params), num_extra=len(self._requests))
        for test_net in self.test_nets:
            test_net.share_params_with(self.net)
        self.tester = Tester(self.test_nets, self.param, self.communicator)
        self.display = Display(self.net, self.communicator, self.param.display)
        self.updater = Updater(self.param, self.net.learnable_params, self.arena)
        prefix = snapshot_prefix(self.param, self.recipe.path)
        self.keeper = Keeper(SnapshotStore(prefix, snapshot_format(self.param)), self.communicator)

    def _make_nets(self) -> list[Net]:
        """Return train and test nets. Raises UserError with the mistakes of all of them."""
        shard = Shard(self.communicator.rank, self.communicator.world_size)
        test_shard = Shard(0, 1) if self.param.dtrain_param.test_on_rank_0 else shard
        plans: list[tuple[NetRecipe, Deal, Shard]] = [(self.recipe.train, "records", shard)]
        plans += [(test, "batches", test_shard) for test in self.recipe.tests]
        problems, nets = Problems(), []
        for recipe, deal, share in plans:
            with problems.collected():
                net = build_net(
                    recipe,
                    self.engine,
                    share,
                    seed=self.seed,
                    deal=deal,
                    activity=self.activity,
                    communicator=self.communicator if deal == "records" else None,
                )
                nets.append(net)
        problems.raise_if_any()
        return nets

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
        """How many stepvalues of the multistep policy have been reached."""
        return multistep_index(self.param, self.iter) if self.param.lr_policy == "multistep" else 0

    @property
    def epoch(self) -> int:
        """How many times all records of the first reading layer have been read."""
        return epochs_done(self.net)

    # -- running --------------------------------------------------------------------------------------------

    def solve(self) -> None:
        """Train until max_iter or until a stop is requested; test, display and snapshot on the way. Collective."""
        self.stopped_early = False
        if self.param.snapshot or self.param.snapshot_after_train:
            self.keeper.probe()
        log.info("Solving %s", self.net.name)
        log.info("Learning Rate Policy: %s", self.param.lr_policy)
        self._tell("on_start")
        self._run(self.max_iter - self.iter)
        self._finish()
        self._tell("on_end")

    def step(self, num_iterations: int) -> None:
        """Train `num_iterations` iterations; the smoothed loss starts anew, as in Caffe. Collective."""
        self.losses.restart()
        self._run(num_iterations)

    def request_stop(self) -> None:
        """Ask all ranks to stop after the iteration under way. Not collective; safe in a signal handler."""
        self._requests[STOP] = 1

    def request_snapshot(self) -> None:
        """Ask for a snapshot after the iteration under way. Not collective; safe in a signal handler."""
        self._requests[SNAPSHOT] = 1

    def _run(self, num_iterations: int) -> None:
        self.display.start_lap(self.iter)
        for layer in self.net.reading_layers:
            if not layer.started:
                layer.start(self.iter * self.param.iter_size * layer.records_per_pass)
        end = self.iter + num_iterations
        while self.iter < end and not self.stopped_early:
            self._iterate()

    def _iterate(self) -> None:
        self.activity.iteration = self.iter
        if self.tester.is_due(self.iter) and (self.iter > 0 or self.param.test_initialization):
            self.test_all()
        self._forward_backward()
        if self.display.is_due(self.iter):
            self.display.show(self.iter, self.smoothed_loss, self.learning_rate)
        self._all_reduce()
        self.activity.doing = "updating the params"
        self.updater.apply(self.iter, self.communicator.world_size)
        self.iter += 1
        self._tell("on_iteration")
        self._handle_requests()

    def _forward_backward(self) -> None:
        self.arena.reduced[...] = 0
        loss = 0.0
        for _ in range(self.param.iter_size):
            loss += self.net.forward()
            self.net.backward()
        self.losses.add(loss / self.param.iter_size)

    def _all_reduce(self) -> None:
        self.activity.doing = "summing the gradients over all ranks"
        asked = self._requests.copy()
        self._requests -= asked  # what a signal asks for meanwhile stays for the next iteration
        self.arena.extra[...] = asked
        self.communicator.all_reduce(self.arena.reduced)

    def _handle_requests(self) -> None:
        """Do what any rank was asked for; every rank sees the same sums, hence does the same."""
        self.keeper.poll()
        if self.arena.extra[STOP]:
            self.stopped_early = True
        due = self.param.snapshot and self.iter % self.param.snapshot == 0
        if due or self.arena.extra[SNAPSHOT]:
            self.snapshot()

    def _finish(self) -> None:
        """End a run as Caffe does: snapshot, then the last loss and the last test."""
        self.activity.iteration = self.iter
        due = self.param.snapshot and self.iter % self.param.snapshot == 0
        if self.param.snapshot_after_train and not due:
            self.snapshot()
        self.keeper.finish()
        if self.stopped_early:
            log.info("Optimization stopped early.")
            return
        if self.display.is_due(self.iter):
            self.losses.add(self.net.forward())
            self.display.show_loss(self.iter, self.smoothed_loss)
        if self.tester.is_due(self.iter):
            self.test_all()
        log.info("Optimization Done.")

    def test_all(self) -> list[list[Score]]:
        """Run every test net over its test_iter batches and return the scores. Collective."""
        average_statistics(self.net.learnable_params, self.communicator)
        return self.tester.run_all(self.iter, lambda index, scores: self._tell("on_test", index, scores))

    # -- params, weights and snapshots ------------------------------------------------------------------------

    def broadcast_params(self) -> None:
        """Give every rank the params of rank 0. Collective."""
        broadcast_params(self.net.learnable_params, self.arena, self.communicator)

    def load_weights(self, paths: Sequence[str]) -> None:
        """Start from the weights of one or more .caffemodel files, which rank 0 reads. Collective.

        Raises UserError for a file that is damaged or of another net.
        """

        def load() -> None:
            for path in paths if self.communicator.rank == 0 else ():
                copy_weights(self.net, load_weights(path), path)

        self.activity.doing = "loading weights"
        together(self.communicator, load, (UserError,))
        self.broadcast_params()

    def restore(self, path: str) -> None:
        """Take up the run of a snapshot (.solverstate). Collective. Raises UserError; then nothing has changed."""
        self.activity.doing = "restoring a snapshot"
        restored = self.keeper.read(path, self.net, self.updater.history)
        self.broadcast_params()
        self.iter = restored.iteration
        if restored.manifest is None:
            go_to_iteration(self.iter, self.param.iter_size, self.net, self.losses)
        else:
            self.seed = restored.manifest.seed
            go_to_place(restored.manifest, self.net, self.test_nets, self.losses)

    def resume_newest(self) -> str | None:
        """Take up the newest good snapshot of this solver's prefix; return its path, or None. Collective."""
        path = self.keeper.newest()
        if path is not None:
            self.restore(path)
        return path

    def snapshot(self) -> str:
        """Write a snapshot of now; return the path of its .solverstate. Collective; rank 0 writes."""
        self.activity.doing = "writing a snapshot"
        average_statistics(self.net.learnable_params, self.communicator)
        # Rank 0's window is what is kept: it must be everybody's, or a resumed run would show another loss.
        self.losses.restart(mean_over_ranks(np.array(self.losses.losses), self.communicator))
        manifest = describe_place(self.net, self.losses, self.iter, self.current_step)
        path = self.keeper.write(self.net, self.updater.history, manifest, self.param.snapshot_diff)
        self._tell("on_snapshot", path)
        return path

    def close(self) -> None:
        """Stop reader threads and wait for a snapshot under way."""
        self.keeper.finish()
        for net in [self.net, *self.test_nets]:
            net.close()

    def _tell(self, event: str, *details: Any) -> None:
        for observer in self.observers:
            getattr(observer, event)(self, *details)
