"""``dtrain check FILE``: all that can be said before a run, on a solver or a net; or all that is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dtrain.core.engines import GPU_ENGINES, Engine
from dtrain.core.errors import Problems, UserError
from dtrain.core.graph.net_recipe import NetRecipe, read_net
from dtrain.core.net.building import build_net
from dtrain.core.net.net import Net
from dtrain.core.prototxt import read_text
from dtrain.core.prototxt.tokens import Kind, tokenize
from dtrain.core.solver.recipe import promises_of, read_precision, read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.data.sampler import Shard
from dtrain.dist.create import BUILT_FOR_GPUS
from dtrain.launcher.arguments import (
    add_communicator_option,
    add_gpu_option,
    add_recompute_option,
    add_state_options,
    split_list,
)
from dtrain.launcher.engine_choice import take_engine
from dtrain.launcher.gpus import gpu_request
from dtrain.launcher.job import Job, open_job
from dtrain.launcher.memory_check import make_memory_check
from dtrain.launcher.net_report import net_report
from dtrain.launcher.simulation.answer import answer_lines
from dtrain.launcher.simulation.memory_report import training_lines
from dtrain.launcher.simulation.options import add_simulation_options, parse_question
from dtrain.launcher.synthetic import add_synthetic_option, make_up, make_up_all, warn_of_made_up
from dtrain.proto import caffe_pb2

_NET_FIELDS = frozenset({"layer", "layers", "input"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("file", metavar="FILE", help="a solver's or a net's prototxt file")
    parser.add_argument("--engine", help="engine that computes the layers; the fastest by default")
    add_gpu_option(parser)
    add_recompute_option(parser)
    add_state_options(parser)
    add_communicator_option(parser)
    add_synthetic_option(parser)
    add_simulation_options(parser)


def run(args: argparse.Namespace) -> int:
    """Build everything that the file describes on every rank; rank 0 prints what it is and ends with ok.

    With --simulate it prints what an iteration would be on more ranks instead.
    """
    question = parse_question(args)
    if question is not None:
        refuse_gpus(args)
    with open_job(args.communicator) as job:
        job.activity.doing = "checking"
        warn_of_made_up(args.synthetic, job.is_first)
        is_net = is_net_file(args.file)
        precision = job.together(lambda: "FLOAT32" if is_net else read_precision(args.file))
        document = job.together(lambda: None if is_net else read_text(args.file, caffe_pb2.SolverParameter))
        if question is None:
            job.take_gpu(gpu_request(args, document))
        solver = document.message if document else caffe_pb2.SolverParameter()
        engine = take_engine(job, args.engine, precision, promises_of(solver))
        if question is not None:
            lines = answer_lines(job, question, args, engine, is_net)
        else:
            lines = net_lines(job, args, engine) if is_net else solver_lines(job, args, engine)
            lines.append("ok")
        if job.is_first:
            print("\n".join(lines))
    return 0


def refuse_gpus(args: argparse.Namespace) -> None:
    """Raise UserError for options that ask for GPUs beside --simulate, which measures on a CPU."""
    named = {"--gpu": args.gpu, "--engine": args.engine, "--communicator": args.communicator}
    for option, value in named.items():
        if value is not None and (option == "--gpu" or value in (*GPU_ENGINES, *BUILT_FOR_GPUS)):
            raise UserError(
                f"--simulate: it measures on a CPU, got {option} {value}; leave that out, and give --flops or"
                " --compute for a GPU"
            )


def is_net_file(path: str) -> bool:
    """Return whether the file at `path` is a net's: it has a layer or an input outside of all braces.

    A file that can't be read is left to those who read it in earnest.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    depth = 0
    for token in tokenize(text):
        if token.kind is Kind.SYMBOL:
            depth += (token.text in "{<") - (token.text in "}>")
        elif depth == 0 and token.kind is Kind.WORD and token.text in _NET_FIELDS:
            return True
    return False


def solver_lines(job: Job, args: argparse.Namespace, engine: Engine) -> list[str]:
    """Return the lines on a solver's run. Collective. Raises UserError or DataError with its mistakes."""
    stages = split_list(args.stage)
    recipe = job.together(lambda: read_recipe(args.file, level=args.level, stages=stages))
    recipe = make_up_all(recipe, args.synthetic)
    solver = Solver(recipe, engine=engine, communicator=job.communicator, activity=job.activity)
    if recipe.weights:
        solver.load_weights(recipe.weights)
    solver.keeper.probe(solver.param.snapshot_diff)
    lines = [run_line(solver)]
    for net in [solver.net, *solver.test_nets]:
        lines += net_report(net)
        lines += memory_of(net, solver.param, args) if job.is_first else []
    check_memory(job, [solver.net, *solver.test_nets], solver.param)
    solver.close()
    return lines


def run_line(solver: Solver) -> str:
    """Return the line on the run as a whole."""
    param, reading = solver.param, solver.net.reading_layers
    epochs = ""
    if reading:
        per_iteration = reading[0].records_per_pass * param.iter_size
        epochs = f" ({param.max_iter * per_iteration / reading[0].loader.num_records:.3g} epochs)"
    ranks = solver.communicator.world_size
    return (
        f"{solver.recipe.path}: {param.type} solver, {param.max_iter} iterations{epochs}, "
        f"{ranks} rank{'s' * (ranks != 1)}, engine {solver.engine.describe()}"
    )


def net_lines(job: Job, args: argparse.Namespace, engine: Engine) -> list[str]:
    """Return the lines on a net in both phases, once if they are the same net. Collective."""
    shard = Shard(job.communicator.rank, job.communicator.world_size)
    nets = job.together(lambda: build_phases(args, engine, shard))
    lines = []
    for phases, net in nets.items():
        lines += net_report(net, phases)
        lines += memory_of(net, caffe_pb2.SolverParameter(), args) if job.is_first else []
        net.close()
    return lines


def memory_of(net: Net, solver: caffe_pb2.SolverParameter, args: argparse.Namespace) -> list[str]:
    """Return the lines on what training `net` takes on a rank, if it is a net to train; it trains no more then."""
    solver.dtrain_param.recompute |= args.recompute
    return training_lines(net, solver)


def check_memory(job: Job, nets: Sequence[Net], solver: caffe_pb2.SolverParameter) -> None:
    """Say whether training fits the ranks' GPUs, if they compute on some. Collective; raises as job.together does."""
    if job.on_gpu:
        for net in nets:
            net.fuse()
    memory, recomputes = make_memory_check(job.on_gpu), solver.dtrain_param.recompute
    job.warn(job.together(lambda: memory.check(nets, recomputes, captures=True)))


def build_phases(args: argparse.Namespace, engine: Engine, shard: Shard) -> dict[str, Net]:
    """Build the net in TRAIN and in TEST, or once for both where its layers are the same.

    Raises UserError with the mistakes of both.
    """
    problems = Problems()
    nets: dict[str, Net] = {}
    for name, phase in caffe_pb2.Phase.items():
        with problems.collected():
            recipe = read_net(args.file, phase, level=args.level or 0, stages=split_list(args.stage))
            if any(layers_of(recipe) == layers_of(net.recipe) for net in nets.values()):
                return {"TRAIN and TEST": nets["TRAIN"]}
            nets[name] = build_net(make_up(recipe, args.synthetic), engine, shard)
    problems.raise_if_any()
    return nets


def layers_of(recipe: NetRecipe) -> list[caffe_pb2.LayerParameter]:
    """Return the layers of a net without the phase that building it has entered."""
    layers = []
    for node in recipe.graph.nodes:
        layers.append(caffe_pb2.LayerParameter())
        layers[-1].CopyFrom(node.param)
        layers[-1].ClearField("phase")
    return layers
