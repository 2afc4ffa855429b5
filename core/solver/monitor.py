"""The monitor: watches one output of a test net, and says what follows from how it comes out.

Between the tests and what depends on them: the learning-rate policy "plateau", early stopping and keep_best.
All ranks see the same scores, hence decide the same; what is counted goes into the manifest of a snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dtrain.core.errors import Problems, UserError
from dtrain.core.names import nearest
from dtrain.core.net.net import Net
from dtrain.core.net.scores import Score
from dtrain.core.snapshots import Manifest, MonitorState
from dtrain.core.solver.field_rules import watches
from dtrain.dist.communicator import Communicator
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


class Monitor:
    """Counts the tests of `nets` as dtrain_param of the solver says.

    state: what has been counted; a resumed run sets it. output: the blob that is watched, "" if nothing is.

    Raises UserError, with the place `where` of the solver's monitor, where the test net does not have the output
    that is to be watched, or it can't be scored.
    """

    def __init__(
        self,
        solver: caffe_pb2.SolverParameter,
        nets: Sequence[Net],
        communicator: Communicator,
        where: str = "solver",
    ) -> None:
        self._options = solver.dtrain_param
        self._param = solver.dtrain_param.monitor
        self._reduces = solver.lr_policy == "plateau"
        self._communicator = communicator
        self.output = ""
        if watches(solver):
            problems = Problems()
            with problems.collected(f"{where}: "):
                self.output = _watched_output(nets[self._param.test_net], self._param)
            problems.raise_if_any()
        self.state = MonitorState()

    @property
    def has_given_up(self) -> bool:
        """Whether early_stopping_patience tests or more in a row were no better than the best."""
        patience = self._options.early_stopping_patience
        return 0 < patience <= self.state.tests_since_best

    def take_up(self, manifest: Manifest | None, current_step: int) -> None:
        """Go on counting from a snapshot; one of Caffe's own (None) says the number of reductions alone."""
        reductions = current_step if self._reduces else 0
        self.state = manifest.monitor if manifest else MonitorState(num_reductions=reductions)

    def enter(self, iteration: int, results: Sequence[Sequence[Score]]) -> bool:
        """Count the test at `iteration`; return whether its score is the best so far.

        results: the scores of each test net; no scores on ranks that took no part. A test that has been counted
        before (a resumed run repeats the one of its snapshot) changes nothing. Collective.
        """
        if not self.output or iteration == self.state.last_test:
            return False
        score = self._score(results[self._param.test_net])
        is_best = self._is_better(score)
        state = replace(self.state, last_test=iteration)
        if is_best:
            best_iterations = (*state.best_iterations, iteration)
            self.state = replace(
                state, best=score, best_iterations=best_iterations, tests_since_best=0, tests_since_change=0
            )
        else:
            self.state = self._after_no_improvement(state)
        return is_best

    def describe(self) -> str:
        """Return how the tests came out, for the log."""
        state = self.state
        best = f"{state.best:g} at iteration {state.best_iterations[-1]}" if state.best_iterations else "none"
        return (
            f"{self.output} of test net #{self._param.test_net} has not improved in {state.tests_since_best} "
            f"tests (best: {best})"
        )

    def _after_no_improvement(self, state: MonitorState) -> MonitorState:
        state = replace(
            state,
            tests_since_best=state.tests_since_best + 1,
            tests_since_change=state.tests_since_change + 1,
        )
        if self._reduces and state.tests_since_change >= self._options.plateau_patience:
            state = replace(state, tests_since_change=0, num_reductions=state.num_reductions + 1)
            log.info("Plateau Status: Iteration %d, step = %d", state.last_test, state.num_reductions)
        return state

    def _is_better(self, score: float) -> bool:
        """Return whether `score` is a number and better than the best by min_delta or more."""
        if np.isnan(score):
            return False
        if self.state.best is None:
            return True
        gain = score - self.state.best if self._param.higher_is_better else self.state.best - score
        return gain > 0 and gain >= self._param.min_delta

    def _score(self, scores: Sequence[Score]) -> float:
        """Return the watched score, the same on all ranks."""
        value = np.array([next((score.value for score in scores if score.name == self.output), np.nan)])
        if self._options.test_on_rank_0:
            self._communicator.broadcast(value)
        return float(value[0])


def _watched_output(net: Net, param: caffe_pb2.MonitorParameter) -> str:
    """Return the output of `net` that `param` names: by default its only one, or the first that is a loss."""
    weights = net.blob_loss_weights
    losses = [name for name in net.outputs if weights[name]]
    outputs = net.outputs if len(net.outputs) == 1 else losses
    name = param.output or (outputs[0] if outputs else "")
    known = f"the outputs of test net #{param.test_net} are {', '.join(net.outputs) or 'none'}"
    if not name:
        raise UserError(f"monitor must name an output, as none of them is a loss; {known}")
    if name not in net.outputs:
        hint = nearest(name, net.outputs)
        raise UserError(
            f'monitor\'s output must be an output, got "{name}"; {hint + "; " if hint else ""}{known}'
        )
    if net.blobs[name].count != 1:
        raise UserError(
            f'monitor\'s output must be a single value, got "{name}" of shape {net.blobs[name].shape}; {known}'
        )
    _check_direction(net, name, param)
    return name


def _check_direction(net: Net, name: str, param: caffe_pb2.MonitorParameter) -> None:
    """Refuse to take the lowest accuracy for the best."""
    makers = [layer.type for layer, tops in zip(net.layers, net.top_names, strict=True) if name in tops]
    if "Accuracy" in makers and not param.higher_is_better:
        raise UserError(
            f'monitor\'s output "{name}" is an accuracy: higher_is_better must be true, got false'
        )
