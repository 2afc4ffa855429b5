"""pycaffe's solvers: training from a script, on this process alone or on the ranks that mpirun started.

Wraps the core's Solver. Follows caffe's _caffe.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

from dtrain.core.caffe_state import STATE
from dtrain.core.errors import UserError
from dtrain.core.pycaffe.nccl import NCCL
from dtrain.core.pycaffe.net import Net
from dtrain.core.pycaffe.settings import engine_of_mode
from dtrain.core.pycaffe.solver_param import SolverParam
from dtrain.core.pycaffe.uncaught import end_all_when_uncaught
from dtrain.core.solver.notes import log_notes_of_scripts
from dtrain.core.solver.recipe import Recipe, read_recipe
from dtrain.core.solver.solver import Solver as CoreSolver
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import create_communicator, join_gpus

Path = str | os.PathLike[str]


class Solver:
    """A solver read from a prototxt file, of the type that the file names.

    Where an MPI launcher started the script on several ranks, they train together, and every call but the
    properties is collective. The weights that the file names are loaded. Raises UserError, a RuntimeError, for a
    file that is missing or mistaken.
    """

    type: ClassVar[str | None] = None  # of a subclass; it counts more than the file's

    def __init__(self, solver_file: Path) -> None:
        self._start(read_recipe(os.fspath(solver_file), solver_type=self.type))

    def _start(self, recipe: Recipe) -> None:
        communicator = create_communicator(None, os.environ)
        _check_solver_count(communicator)
        end_all_when_uncaught(communicator)
        if STATE.is_mode_gpu:
            communicator = join_gpus(communicator, STATE.device)
        if recipe.solver.random_seed < 0 and STATE.has_seed:
            recipe.solver.random_seed = STATE.next_seed()
        engine = engine_of_mode(recipe.precision, recipe.promises)
        self._core = CoreSolver(recipe, engine=engine, communicator=communicator)
        log_notes_of_scripts(recipe)
        if recipe.weights:
            self._core.load_weights(recipe.weights)
        self._net = Net.of(self._core.net)
        self._test_nets = [Net.of(net) for net in self._core.test_nets]
        for params in self._net.params.values():
            params.keeps_memory = True

    @property
    def core(self) -> CoreSolver:
        """The solver behind this one, for what pycaffe has no name for."""
        return self._core

    @property
    def net(self) -> Net:
        """The net that is trained."""
        return self._net

    @property
    def test_nets(self) -> list[Net]:
        """The test nets, which share the params of `net`."""
        return self._test_nets

    @property
    def iter(self) -> int:
        """The number of updates done."""
        return self._core.iter

    @property
    def param(self) -> SolverParam:
        """The solver's fields: max_iter, display, layer_wise_reduce …; base_lr may be set."""
        return SolverParam(self._core.param)

    @property
    def base_lr(self) -> float:
        """The learning rate on which the policy acts; may be set."""
        return self._core.param.base_lr

    @base_lr.setter
    def base_lr(self, rate: float) -> None:
        self.param.base_lr = rate

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._core.learning_rate

    def step(self, num_iterations: int) -> None:
        """Train `num_iterations` iterations."""
        self._core.step(num_iterations)

    def solve(self, resume_file: Path | None = None) -> None:
        """Train to the end, from a snapshot if one is given."""
        if resume_file is not None:
            self.restore(resume_file)
        self._core.solve()

    def restore(self, path: Path) -> None:
        """Take up the run of a .solverstate."""
        self._core.restore(os.fspath(path))

    def snapshot(self) -> None:
        """Write a snapshot of now and wait until it is on the disk."""
        self._core.snapshot()
        self._core.keeper.finish()

    def share_weights(self, net: Net) -> None:
        """Let `net` use this solver's params in its layers of the same names."""
        net.share_with(self._net)

    def apply_update(self) -> None:
        """Update the params by their diffs, averaged over all ranks, and count the iteration.

        For loops of one's own: net.clear_param_diffs(), net.forward(), net.backward(), apply_update().
        """
        self._core.apply_update()

    def add_callback(
        self, on_start: Callable[[], object] | NCCL, on_gradients_ready: Callable[[], object] | None = None
    ) -> None:
        """Call on_start() before the first forward of each iteration, and on_gradients_ready() once its gradients
        are there: this rank's own, before they are averaged and the params updated.

        With an NCCL alone nothing is added: ranks sum their gradients anyway.
        """
        if isinstance(on_start, NCCL):
            return
        if not (callable(on_start) and callable(on_gradients_ready)):
            raise UserError(
                "add_callback: there must be two functions, on_start and on_gradients_ready, or an NCCL"
            )
        self._core.callbacks.append((on_start, on_gradients_ready))


class SGDSolver(Solver):
    """Trains by SGD with momentum, whatever type the file names; so do the classes below by their types."""

    type = "SGD"


class NesterovSolver(Solver):
    """Trains by Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """Trains by AdaGrad."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """Trains by RMSProp."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """Trains by AdaDelta."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Trains by Adam."""

    type = "Adam"


_CLASSES = {
    each.type: each
    for each in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
}


def get_solver(solver_file: Path) -> Solver:
    """Return the solver of the file, of the type that it names: an instance of that type's class."""
    recipe = read_recipe(os.fspath(solver_file))
    solver_class = _CLASSES.get(recipe.solver.type, Solver)
    solver = solver_class.__new__(solver_class)
    solver._start(recipe)
    return solver


def _check_solver_count(communicator: Communicator) -> None:
    """Tell this thread's state the ranks; raise UserError if the script has said another number of them."""
    world_size = communicator.world_size
    if STATE.solver_count not in (None, world_size):
        raise UserError(
            f"set_solver_count: the count must be the number of ranks, {world_size}, got {STATE.solver_count}; "
            f"start the script by mpirun -np {STATE.solver_count}, in place of starting processes itself"
        )
    if world_size > 1:
        STATE.solver_count, STATE.solver_rank = world_size, communicator.rank
