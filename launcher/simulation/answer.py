"""The answer to a question: read the files, set up the net, measure what is asked for, predict, report.

question (options.py) ──> work and machine ──> predictions ──> lines or JSON
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace

import numpy as np

from dtrain.core.engines import Engine
from dtrain.core.graph.net_recipe import NetRecipe, read_net
from dtrain.core.net.arena import Arena
from dtrain.core.net.building import build_net
from dtrain.core.net.net import Net
from dtrain.core.solver.extra_values import NUM_EXTRA
from dtrain.core.solver.recipe import read_recipe
from dtrain.data.sampler import Shard
from dtrain.dist.communicator import Communicator
from dtrain.launcher.arguments import split_list
from dtrain.launcher.job import Job
from dtrain.launcher.simulation.calibration import (
    SIZES_BYTES,
    fit_ring,
    measure_all_reduce,
    measure_passes_together,
    on_rank_0,
)
from dtrain.launcher.simulation.cluster import clusters_up_to
from dtrain.launcher.simulation.collectives import Network
from dtrain.launcher.simulation.compute import (
    costs_from_file,
    costs_from_flops,
    iterations_within,
    measure_costs,
)
from dtrain.launcher.simulation.links import FREE
from dtrain.launcher.simulation.memory import count_memory, measure_passes
from dtrain.launcher.simulation.memory_report import memory_lines
from dtrain.launcher.simulation.options import Question, check_world_size
from dtrain.launcher.simulation.prediction import Machine, predict
from dtrain.launcher.simulation.report import report_json, report_lines
from dtrain.launcher.simulation.work import Costs, Work, make_work
from dtrain.launcher.synthetic import make_up
from dtrain.proto import caffe_pb2


@dataclass(frozen=True)
class Subject:
    """The training to predict. solver: a file's, or Caffe's defaults for a net's file."""

    title: str
    solver: caffe_pb2.SolverParameter
    net: Net
    arena: Arena


def answer_lines(
    job: Job, question: Question, args: argparse.Namespace, engine: Engine, is_net: bool
) -> list[str]:
    """Return what to print. Collective. Raises UserError or DataError with the mistakes of files and options."""
    communicator = job.communicator
    job.together(lambda: check_world_size(question, communicator.world_size))
    subject = job.together(lambda: set_up(args, engine, is_net, communicator))
    given = job.together(lambda: _given_costs(question, subject.net))
    job.activity.doing = "measuring what to predict from"
    work, machine = find_work(question, subject, given, communicator)
    recomputes = subject.solver.dtrain_param.recompute
    measures = question.measures_compute and job.is_first
    passes = measure_passes(subject.net, recomputes) if measures else None
    memory = count_memory(subject.net, subject.arena, subject.solver, passes)
    predictions = predict(work, machine, clusters_up_to(question.cluster))
    subject.net.close()
    if args.json:
        return [report_json(work, machine, predictions, memory, subject.net.layer_names)]
    return report_lines(subject.title, work, machine, predictions, memory_lines(memory, subject.solver))


def find_work(
    question: Question, subject: Subject, costs: Costs | None, communicator: Communicator
) -> tuple[Work, Machine]:
    """Return the work of a rank and the machine, what is not given measured by the ranks of this job. Collective."""
    net = subject.net
    if costs is None:
        measured = on_rank_0(communicator, lambda: measure_costs(net, subject.solver, question.measured_s))
        costs = share_costs(measured, len(net.layers), communicator)
    machine = find_machine(question, costs, net, communicator)
    return make_work(net, subject.arena, subject.solver, costs), machine


def set_up(args: argparse.Namespace, engine: Engine, is_net: bool, communicator: Communicator) -> Subject:
    """Return the training net of the file of `args`, with its learned params in an arena as in training.

    Its layers know of no other ranks, so that one rank can run it alone.
    """
    solver, recipe = _read(args, is_net)
    solver.dtrain_param.recompute |= args.recompute
    net = build_net(recipe, engine, Shard(communicator.rank, communicator.world_size))
    net.fuse()  # as training does
    arena = Arena(net.param_table.with_gradients, NUM_EXTRA)
    return Subject(f"{args.file}: {solver.type} solver, engine {engine.describe()}", solver, net, arena)


def _read(args: argparse.Namespace, is_net: bool) -> tuple[caffe_pb2.SolverParameter, NetRecipe]:
    stages = split_list(args.stage)
    if is_net:
        net = read_net(args.file, caffe_pb2.TRAIN, level=args.level or 0, stages=stages)
        return caffe_pb2.SolverParameter(), make_up(net, args.synthetic)
    recipe = read_recipe(args.file, level=args.level, stages=stages)
    return recipe.solver, make_up(recipe.train, args.synthetic)


def _given_costs(question: Question, net: Net) -> Costs | None:
    """Return the costs that need no measurement, None if they are to be measured."""
    if question.compute_file is not None:
        return costs_from_file(net, question.compute_file)
    if question.flops_per_s is not None:
        return costs_from_flops(net, question.flops_per_s, question.efficiency)
    return None


def share_costs(costs: Costs | None, num_layers: int, communicator: Communicator) -> Costs:
    """Return the costs that rank 0 gives, on all ranks. Collective."""
    values = np.zeros(2 * num_layers + 2)
    if costs is not None and communicator.rank == 0:
        values[:] = [*costs.forward_s, *costs.backward_s, costs.update_s, costs.reading_s]
    communicator.broadcast(values)
    forward, backward = values[:num_layers].tolist(), values[num_layers:-2].tolist()
    return Costs(tuple(forward), tuple(backward), *values[-2:].tolist())


def find_machine(question: Question, costs: Costs, net: Net, communicator: Communicator) -> Machine:
    """Return the machine of `question`, what it leaves open measured by the ranks of this job. Collective.

    Ranks of one host carry themselves what they exchange, so nothing overlaps where their link was measured.
    """
    if not question.measures_link:
        network = Network(question.across or FREE, question.inside or FREE)
        slowdown = question.slowdown or 1.0
        return Machine(network, question.algorithm, question.cores, slowdown, question.overlaps)
    num_ranks, ranks_here = communicator.world_size, communicator.topology.local_size
    cores = question.cores or os.cpu_count() or 1
    overlaps = question.overlaps and ranks_here < num_ranks
    bare = Machine(Network(FREE, FREE), question.algorithm, cores, 1.0, overlaps)
    crowding = 1.0 if overlaps else bare.crowding(ranks_here)
    times_s = [seconds / crowding for seconds in measure_all_reduce(communicator)]
    link = fit_ring(SIZES_BYTES, times_s, num_ranks)
    slowdown = question.slowdown or 1.0
    if question.slowdown is None and question.measures_compute:
        num_iterations = iterations_within(question.measured_s, costs.pass_s)
        together_s = measure_passes_together(net, communicator, num_iterations)
        slowdown = together_s / (costs.pass_s * bare.stretch(costs, ranks_here))
    return replace(bare, network=Network(question.across or link, question.inside or link), slowdown=slowdown)
