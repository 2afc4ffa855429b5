"""``dtrain summary FILE``: the layers of a net, or of a solver's net, with what they compute and take."""

from __future__ import annotations

import argparse
import os

from dtrain.core.engines import GPU_ENGINES, Engine, create_engine
from dtrain.core.engines.outline import create_outline
from dtrain.core.errors import UserError
from dtrain.core.graph.net_recipe import NetRecipe, read_net
from dtrain.core.net.building import build_net
from dtrain.core.solver.recipe import read_recipe
from dtrain.data.sampler import Shard
from dtrain.launcher.arguments import (
    add_engine_options,
    add_recompute_option,
    add_state_options,
    chosen_precision,
    split_list,
)
from dtrain.launcher.commands.check import is_net_file
from dtrain.launcher.job import open_console
from dtrain.launcher.net_summary import net_summary
from dtrain.launcher.simulation.memory_report import training_lines
from dtrain.launcher.synthetic import add_synthetic_option, make_up, warn_of_made_up
from dtrain.proto import caffe_pb2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("file", metavar="FILE", help="a solver's or a net's prototxt file")
    parser.add_argument(
        "--phase", choices=caffe_pb2.Phase.keys(), default="TRAIN", help="TRAIN or TEST (default: TRAIN)"
    )
    add_state_options(parser)
    add_engine_options(parser)
    add_recompute_option(parser)
    add_synthetic_option(parser)


def run(args: argparse.Namespace) -> int:
    """Build the net on this process alone and print its table; for a net that learns, what training it takes.

    With an engine for GPUs that is of a GPU's memory, and there need not be one.
    """
    open_console(os.environ)
    warn_of_made_up(args.synthetic)
    solver, recipe = read(args)
    engine = make_engine(args.engine, caffe_pb2.Precision.Name(solver.dtrain_param.precision))
    net = build_net(make_up(recipe, args.synthetic), engine, Shard(0, 1))
    title = f'{args.phase} net "{net.name}" ({net.recipe.document.path}), engine {engine.name}'
    print("\n".join([title, *net_summary(net), *training_lines(net, solver)]))
    net.close()
    return 0


def make_engine(name: str | None, precision: str) -> Engine:
    """Return the engine called `name`, in outline where it is one for GPUs; by default the fastest for CPUs."""
    return create_outline(name, precision) if name in GPU_ENGINES else create_engine(name, precision)


def read(args: argparse.Namespace) -> tuple[caffe_pb2.SolverParameter, NetRecipe]:
    """Return the solver, Caffe's defaults for a net's file, and the net of the phase that `args` ask for.

    Raises UserError for mistakes in the files, and for a solver without a net of that phase.
    """
    stages, phase, precision = (
        split_list(args.stage),
        caffe_pb2.Phase.Value(args.phase),
        chosen_precision(args),
    )
    if is_net_file(args.file):
        solver = caffe_pb2.SolverParameter()
        if precision:
            solver.dtrain_param.precision = caffe_pb2.Precision.Value(precision)  # type: ignore[assignment]
        solver.dtrain_param.recompute = args.recompute
        return solver, read_net(args.file, phase, level=args.level or 0, stages=stages)
    recipe = read_recipe(args.file, level=args.level, stages=stages, precision=precision)
    recipe.solver.dtrain_param.recompute |= args.recompute
    if phase == caffe_pb2.TRAIN:
        return recipe.solver, recipe.train
    if not recipe.tests:
        raise UserError(f"{args.file}: --phase TEST: the solver must have a test net, got none")
    return recipe.solver, recipe.tests[0]
