"""``dtrain time``: how long each layer of a net takes, forward and backward, and what it reaches in that time.

Follows caffe's tools/caffe.cpp (time).
"""

from __future__ import annotations

import argparse
import logging
import os

from dtrain.core.engines import Engine, create_engine
from dtrain.core.graph.net_recipe import NetRecipe, read_net
from dtrain.core.net.building import build_net
from dtrain.core.net.memory_sharing import find_net_again, share_memory
from dtrain.core.net.net import Net
from dtrain.data.sampler import Shard
from dtrain.launcher.arguments import (
    add_engine_options,
    add_fuse_option,
    add_gpu_option,
    add_promise_options,
    add_recompute_option,
    add_state_options,
    chosen_precision,
    split_list,
    whole_number,
)
from dtrain.launcher.engine_choice import asked_promises
from dtrain.launcher.gpus import gpu_request
from dtrain.launcher.job import open_console, take_gpu_alone
from dtrain.launcher.layer_table import find_layouts, layer_table
from dtrain.launcher.layer_times import again_line, time_layers, time_lines
from dtrain.launcher.memory_check import MemoryCheck, make_memory_check
from dtrain.launcher.synthetic import add_synthetic_option, make_up, warn_of_made_up
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--model", required=True, help="the net's prototxt file")
    parser.add_argument(
        "--phase", choices=caffe_pb2.Phase.keys(), default="TRAIN", help="TRAIN or TEST (default: TRAIN)"
    )
    parser.add_argument(
        "--iterations", type=whole_number, default=50, help="number of iterations (default: 50)"
    )
    add_state_options(parser)
    add_engine_options(parser)
    add_promise_options(parser)
    add_gpu_option(parser)
    add_fuse_option(parser)
    add_recompute_option(parser)
    add_synthetic_option(parser)


def run(args: argparse.Namespace) -> int:
    """Time the net on this process alone: log Caffe's lines, print a table; a first run warms up."""
    open_console(os.environ)
    warn_of_made_up(args.synthetic)
    phase = caffe_pb2.Phase.Value(args.phase)
    recipe = read_net(args.model, phase, level=args.level or 0, stages=split_list(args.stage))
    on_gpu = take_gpu_alone(gpu_request(args))
    precision = chosen_precision(args) or "FLOAT32"
    memory = make_memory_check(on_gpu)
    with memory.named():
        engine = create_engine(args.engine, precision, on_gpu=on_gpu, promises=asked_promises(args))
        time_net(args, recipe, engine, memory)
    return 0


def time_net(args: argparse.Namespace, recipe: NetRecipe, engine: Engine, memory: MemoryCheck) -> None:
    """Build the net, run it once, time it and print what came out."""
    net = build_net(make_up(recipe, args.synthetic), engine, Shard(0, 1))
    if not args.no_fuse:
        net.fuse()
    log.info("Using %s", engine.describe())
    for line in memory.check([net], shares=False):
        log.warning(line)
    log.info("Performing Forward")
    log.info("Initial loss: %g", net.forward())
    log.info("Performing Backward")
    net.backward()
    net.clear_param_diffs()
    layouts = find_layouts(net)
    if args.recompute:
        recompute(net)
    log.info("*** Benchmark begins ***")
    log.info("Testing for %d iterations.", args.iterations)
    times = time_layers(
        net, args.iterations, lambda k, ms: log.info("Iteration: %d forward-backward time: %.6g ms.", k, ms)
    )
    for line in time_lines(times):
        log.info(line)
    log.info("*** Benchmark ends ***")
    print("\n".join(filter(None, [*layer_table(net, times, layouts), again_line(times)])))
    net.close()


def recompute(net: Net) -> None:
    """Let `net`, which has run, compute some of its blobs twice from now on, if it then needs less; else say so."""
    if not find_net_again(net):
        log.info("--recompute: no layer runs forward again: the net would not need less")
        return
    share_memory([net], recomputes=True)
    net.forward()
    net.backward()
    net.clear_param_diffs()
