"""``dtrain test``: score a net with given weights on its TEST data, on all ranks.

Follows caffe's tools/caffe.cpp (test).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dtrain.core.engines import Engine
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.net.building import build_net
from dtrain.core.net.net import Net
from dtrain.core.net.scores import Score, name_values
from dtrain.core.net.weights import copy_weights
from dtrain.core.snapshots import load_weights
from dtrain.core.solver.testing import run_test_pass
from dtrain.data.sampler import Shard
from dtrain.launcher.arguments import (
    add_communicator_option,
    add_engine_options,
    add_fuse_option,
    add_gpu_option,
    add_promise_options,
    add_state_options,
    chosen_precision,
    split_list,
    whole_number,
)
from dtrain.launcher.engine_choice import asked_promises, take_engine
from dtrain.launcher.gpus import gpu_request
from dtrain.launcher.job import Job, open_job
from dtrain.launcher.memory_check import make_memory_check
from dtrain.launcher.synthetic import add_synthetic_option, make_up, warn_of_made_up
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--model", required=True, help="the net's prototxt file")
    parser.add_argument(
        "--weights", action="append", required=True, help=".caffemodel files, separated by commas"
    )
    parser.add_argument("--iterations", type=whole_number, default=50, help="number of batches (default: 50)")
    add_state_options(parser)
    add_engine_options(parser)
    add_promise_options(parser)
    add_gpu_option(parser)
    add_communicator_option(parser)
    add_fuse_option(parser)
    add_synthetic_option(parser)


def run(args: argparse.Namespace) -> int:
    """Score the net and log the values of each batch that rank 0 runs, then the means over all batches."""
    with open_job(args.communicator) as job:
        warn_of_made_up(args.synthetic, job.is_first)
        job.take_gpu(gpu_request(args))
        engine = take_engine(job, args.engine, chosen_precision(args) or "FLOAT32", asked_promises(args))
        memory = make_memory_check(job.on_gpu)
        with memory.named():
            net = job.together(lambda: make_net(args, job, engine))
            job.warn(job.together(lambda: memory.check([net], shares=False)))
            log.info("Running for %d iterations.", args.iterations)
            job.activity.doing = "testing"
            scores, loss = run_test_pass(net, args.iterations, job.communicator, batch_logger(net))
        for line in mean_lines(scores, loss):
            log.info(line)
        net.close()
    return 0


def make_net(args: argparse.Namespace, job: Job, engine: Engine) -> Net:
    """Build the TEST net with its weights."""
    recipe = read_net(args.model, caffe_pb2.TEST, level=args.level or 0, stages=split_list(args.stage))
    shard = Shard(job.communicator.rank, job.communicator.world_size)
    net = build_net(make_up(recipe, args.synthetic), engine, shard)
    if not args.no_fuse:
        net.fuse()
    for text in args.weights:
        for path in split_list(text):
            copy_weights(net, load_weights(path), path)
    return net


def batch_logger(net: Net) -> Callable[[int, NDArray[np.float64]], None]:
    """Return a function that logs a batch's output values as Caffe does."""

    def log_batch(batch: int, values: NDArray[np.float64]) -> None:
        for score in name_values(net, values):
            log.info("Batch %d, %s = %g", batch, score.name, score.value)

    return log_batch


def mean_lines(scores: Sequence[Score], loss: float) -> list[str]:
    """Return Caffe's lines on the means: the loss, then each output value."""
    lines = [f"Loss: {loss:g}"]
    for name, value, weight in scores:
        part = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
        lines.append(f"{name} = {value:g}{part}")
    return lines
