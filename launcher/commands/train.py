"""``dtrain train``: train a net as its solver file says, on all ranks; ``dtrain SOLVER`` for short.

Follows caffe's tools/caffe.cpp (train).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from dtrain.core.errors import UserError
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.solver.global_batch import with_global_batch
from dtrain.core.solver.recipe import Recipe, read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.errors import EXIT_STOPPED
from dtrain.launcher.arguments import (
    add_communicator_option,
    add_engine_options,
    add_fuse_option,
    add_gpu_option,
    add_graph_option,
    add_promise_options,
    add_recompute_option,
    add_state_options,
    chosen_precision,
    duration,
    split_list,
    whole_number,
)
from dtrain.launcher.engine_choice import enter_promises, take_engine
from dtrain.launcher.gpus import gpu_request
from dtrain.launcher.job import Job, open_job
from dtrain.launcher.memory_check import MemoryCheck, make_memory_check
from dtrain.launcher.progress import ProgressObserver
from dtrain.launcher.signals import EFFECTS, signal_effects, signals_handled
from dtrain.launcher.synthetic import (
    add_synthetic_option,
    hint_at_made_up,
    make_up_all,
    warn_of_made_up,
)
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

LearningRateScaling = caffe_pb2.DtrainSolverParameter.LearningRateScaling

EXIT_DONE = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--solver", required=True, help="the solver's prototxt file")
    parser.add_argument("--snapshot", help="take up the run of this .solverstate")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        help="start from these .caffemodel files, separated by commas",
    )
    parser.add_argument(
        "--resume", choices=["auto"], help="auto: take up the newest good snapshot, if there is one"
    )
    for name, default in (("sigint", "stop"), ("sighup", "snapshot")):
        parser.add_argument(
            f"--{name}_effect",
            choices=EFFECTS,
            default=default,
            help=f"what {name.upper()} does at an iteration's end (default: {default}); stop snapshots too",
        )
    parser.add_argument(
        "--timeout",
        type=duration,
        metavar="SECONDS",
        help="end the job when a rank has done nothing new for so long, 0: never (default: as needed)",
    )
    _add_batch_options(parser)
    add_fuse_option(parser)
    add_graph_option(parser)
    parser.add_argument(
        "--keep-blobs",
        action="store_true",
        help="keep all blobs' values to each pass's end; else those that no layer reads any more share memory",
    )
    add_recompute_option(parser)
    add_state_options(parser)
    add_engine_options(parser)
    add_promise_options(parser)
    add_gpu_option(parser)
    add_communicator_option(parser)
    add_synthetic_option(parser)


def _add_batch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--global-batch",
        nargs="?",
        const=0,
        type=whole_number,
        metavar="N",
        help="the ranks share batches of N records, by default of the file's batch_size; else each has one",
    )
    parser.add_argument(
        "--lr-scaling",
        choices=[name.lower() for name in LearningRateScaling.DESCRIPTOR.values_by_name],
        help="multiply the learning rate by k or its root for k times as many records an update",
    )


def run(args: argparse.Namespace) -> int:
    """Train; return 0, or 75 if a signal stopped the run."""
    check_flags(args)
    with open_job(args.communicator, args.timeout) as job:
        recipe = job.together(lambda: chosen_recipe(args, job.communicator.world_size))
        warn_of_made_up(args.synthetic, job.is_first)
        hint_at_made_up(recipe, args.synthetic, job.is_first)
        job.take_gpu(gpu_request(args, recipe.document))
        engine = take_engine(job, args.engine, recipe.precision, recipe.promises)
        log.info("Using %s; ranks: %d", engine.describe(), job.communicator.world_size)
        log.info("Communicator: %s (%s)", job.communicator.name, job.communicator.reason)
        memory = make_memory_check(job.on_gpu)
        with memory.named():
            solver = Solver(
                recipe,
                engine=engine,
                communicator=job.communicator,
                observers=[ProgressObserver(job.console)],
                activity=job.activity,
            )
            set_up(solver, args, job, memory)
            set_start(solver, args)
            with signals_handled(solver, signal_effects(args.sigint_effect, args.sighup_effect)):
                solver.solve()
            solver.close()
        return exit_code(solver, job.is_first)


def set_up(solver: Solver, args: argparse.Namespace, job: Job, memory: MemoryCheck) -> None:
    """Let the nets run as a run has them that nobody looks into, if they fit. Collective; raises as `together`."""
    solver.updater.shows_changes = solver.param.snapshot_diff
    if not args.no_fuse:
        solver.fuse()
    nets, shares = [solver.net, *solver.test_nets], not args.keep_blobs
    recomputes = shares and (args.recompute or solver.param.dtrain_param.recompute)
    job.warn(job.together(lambda: memory.check(nets, recomputes, shares, not args.no_graph)))
    if shares:
        share_memory(nets, recomputes)
    if not args.no_graph:
        solver.capture()


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that can't be, or can't be together."""
    if args.snapshot and (args.weights or args.resume):
        other = "--weights" if args.weights else "--resume"
        raise UserError(f"dtrain train: only one of --snapshot and {other} may be given, got both")
    if args.keep_blobs and args.recompute:
        raise UserError("dtrain train: only one of --keep-blobs and --recompute may be given, got both")


def chosen_recipe(args: argparse.Namespace, world_size: int) -> Recipe:
    """Return the recipe of the solver file, as the flags change it. Raises UserError."""
    scaling = LearningRateScaling.Value(args.lr_scaling.upper()) if args.lr_scaling else None
    recipe = read_recipe(
        args.solver,
        level=args.level,
        stages=split_list(args.stage),
        lr_scaling=scaling,
        precision=chosen_precision(args),
    )
    enter_promises(args, recipe.solver)
    recipe = make_up_all(recipe, args.synthetic)
    if args.global_batch is None:
        return recipe
    return with_global_batch(recipe, world_size, args.global_batch or None)


def set_start(solver: Solver, args: argparse.Namespace) -> None:
    """Let the solver start from a snapshot, the newest snapshot, weights or its fillers. Collective."""
    if args.snapshot:
        solver.restore(args.snapshot)
    elif not (args.resume and solver.resume_newest()):
        weights = chosen_weights(args.weights, solver.recipe)
        if weights:
            solver.load_weights(weights)


def chosen_weights(given: Sequence[str], recipe: Recipe) -> list[str]:
    """Return the weights to start from: those of the command line, or else those of the solver file."""
    return [path for text in given for path in split_list(text)] or recipe.weights


def exit_code(solver: Solver, is_first: bool) -> int:
    """Return the exit code of a run that has ended; rank 0 says how a stopped one goes on."""
    if not solver.stopped_early:
        return EXIT_DONE
    state = solver.keeper.store.state_path(solver.iter)
    if is_first and state.exists():
        log.info("Stopped at iteration %d; go on with --snapshot %s", solver.iter, state)
    elif is_first:
        log.warning("Stopped at iteration %d, no snapshot: snapshot_after_train is false", solver.iter)
    return EXIT_STOPPED
