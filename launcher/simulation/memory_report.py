"""The lines on what a rank takes of memory, in `dtrain summary`, in `dtrain check` and below a prediction."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from dtrain.core.engines import GPU_ENGINES
from dtrain.core.net.net import Net
from dtrain.launcher.simulation.device_memory import device_memory_lines
from dtrain.launcher.simulation.memory import count_training
from dtrain.launcher.table import WIDTH
from dtrain.proto import caffe_pb2


def training_lines(net: Net, solver: caffe_pb2.SolverParameter) -> list[str]:
    """Return the lines on what a rank takes that trains `net` by `solver`, of its GPU if it computes on one; none for
    a net without a loss.

    The net's layers run as one afterwards where they can, as in training.
    """
    if net.phase != caffe_pb2.TRAIN or not any(any(weights) for weights in net.loss_weights):
        return []
    if net.context.engine.name in GPU_ENGINES:
        return [*device_memory_lines(net, solver), *fusion_lines(net)]
    return [*memory_lines(count_training(net, solver), solver), *fusion_lines(net)]


def fusion_lines(net: Net) -> list[str]:
    """Return the line that says which layers of `net` run as one, as tables of its layers don't; none if none do."""
    groups = [group for i, group in sorted(net.groups.items()) if i == group.first]
    if not groups:
        return []
    first = " + ".join(net.layer_names[groups[0].first : groups[0].last + 1])
    others = f" and {len(groups) - 1} groups more" * (len(groups) > 1)
    return [f"    there layers run as one, and what lies between takes nothing: {first}{others}"]


def memory_lines(num_bytes: Mapping[str, int], solver: caffe_pb2.SolverParameter) -> list[str]:
    """Return the lines on a rank's memory: the sum, and its parts by name, as many as fit on each line."""
    how = f"{solver.type}, recomputing" if solver.dtrain_param.recompute else solver.type
    title = f"  memory of a rank in training ({how}): {sum(num_bytes.values()) / 1e6:,.1f} MB"
    parts = ", ".join(f"{name} {size / 1e6:,.1f}" for name, size in num_bytes.items() if size)
    indent = "    "
    return [title, *textwrap.wrap(parts, WIDTH, initial_indent=indent, subsequent_indent=indent)]
