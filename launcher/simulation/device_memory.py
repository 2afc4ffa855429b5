"""What training takes of a GPU's memory, part by part, planned from a net that need not have run, nor have a GPU.

net ──> here ──> lines of `dtrain summary` and `dtrain check`; what a run's beginning compares with the GPU it has

Blobs borrow of cupy's pool in the order of the stream, so that they take what they would take of ours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from dtrain.core.net.lifetimes import Again
from dtrain.core.net.memory_sharing import find_net_again
from dtrain.core.net.net import Net
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.launcher.simulation.memory_plan import (
    kept_storages,
    plan_least,
    plan_pool,
    plan_scratch,
    written_storages,
)
from dtrain.launcher.simulation.value_sizes import CONVOLUTIONS, storage_bytes
from dtrain.launcher.simulation.work import find_batch_size
from dtrain.launcher.table import WIDTH
from dtrain.proto import caffe_pb2

WORKSPACE_BYTES = 1 << 30  # the engine cudnn's limit, where that is less than a tenth of the GPU's memory
CUDA_BYTES = 600_000_000  # assumed: nobody has measured it yet
_NUM_STAGED = 2  # batches on their way


@dataclass(frozen=True)
class PassBytes:
    """What a pass of one net takes beside what a run keeps all the time.

    least: blobs that must be there at once, which nothing can do without. blobs: as they are planned, with copies in
    16 bits. batches: on their way. scratch: what layers and operations keep. All of it grows with the batch.
    """

    least: int
    blobs: int
    batches: int
    scratch: int

    @property
    def planned(self) -> int:
        """The sum of what is planned."""
        return self.blobs + self.batches + self.scratch


def count_pass(net: Net, recomputes: bool = False, shares: bool = True) -> PassBytes:
    """Return what a pass of `net` takes, whose layers run as one already where they are to.

    recomputes: as with --recompute. shares: whether blobs share memory; else each has its own.
    """
    again: Again = find_net_again(net) if recomputes else {}
    sizes, least = storage_bytes(net), storage_bytes(net, least=True)
    stays = {id(storage) for storage in kept_storages(net)}
    if not shares:
        stays.update(id(storage) for storage in written_storages(net))
    return PassBytes(
        (plan_least(net, again) if shares else 0) + sum(least[key] for key in stays),
        (plan_pool(net, again) if shares else 0) + sum(sizes[key] for key in stays),
        sum(layer.device_bytes or _NUM_STAGED * layer.loader.batch_bytes for layer in net.reading_layers),
        plan_scratch(net),
    )


def count_params(net: Net, solver: caffe_pb2.SolverParameter) -> dict[str, int]:
    """Return the bytes of params, of their gradients with what travels in their place, and of the history with the
    average of the weights, where the GPU has them all.
    """
    extra = solver.dtrain_param
    num_values = sum(param.blob.count for param in net.learnable_params)
    num_gradients = sum(param.blob.count for param in net.param_table.with_gradients)
    copies = 3 if extra.stale_gradients else 1  # the copy, and one more while the two are swapped
    is_float32 = extra.wire_precision == caffe_pb2.DtrainSolverParameter.FLOAT32
    num_histories = UPDATE_RULES[solver.type].num_histories + bool(extra.ema_decay)
    return {
        "params": 4 * num_values,
        "gradients": 4 * num_gradients * copies + (0 if is_float32 else 2 * num_gradients),
        "history": 4 * num_gradients * num_histories,
    }


def count_device_memory(net: Net, solver: caffe_pb2.SolverParameter) -> dict[str, int]:
    """Return the bytes of each part of what training `net` by `solver` takes of a GPU at its peak.

    CUDA: its context, with the code of libraries (an assumption). A workspace for convolutions is not in it, nor are
    test nets; on the engine cupy what convolutions are lowered to is missing. The net's layers run as one afterwards
    where they can.
    """
    net.fuse()
    in_pass = count_pass(net, solver.dtrain_param.recompute)
    return {
        **count_params(net, solver),
        "blobs": in_pass.blobs,
        "batches": in_pass.batches,
        "scratch": in_pass.scratch,
        "CUDA": CUDA_BYTES,
    }


def device_memory_lines(net: Net, solver: caffe_pb2.SolverParameter) -> list[str]:
    """Return the lines on what training `net` takes of a rank's GPU."""
    found = count_device_memory(net, solver)
    how = f"{solver.type}, recomputing" if solver.dtrain_param.recompute else solver.type
    title = f"  memory of a rank's GPU in training ({how}): {sum(found.values()) / 1e6:,.1f} MB"
    if has_workspace(net):
        title += f", and a workspace of up to {WORKSPACE_BYTES / 1e6:,.1f}"
    parts = ", ".join(f"{name} {size / 1e6:,.1f}" for name, size in found.items() if size)
    indent = "    "
    wrapped = textwrap.wrap(parts, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [title, *wrapped, *_each_line(net, found)]


def _each_line(net: Net, found: Mapping[str, int]) -> list[str]:
    """Return the line that says how much each image of a batch takes."""
    batch_size = find_batch_size(net)
    growing = sum(found[name] for name in ("blobs", "batches", "scratch"))
    return (
        [f"    {growing / batch_size / 1e6:,.2f} MB of it for each image of {batch_size}"]
        if batch_size
        else []
    )


def has_workspace(net: Net) -> bool:
    """Return whether the net's engine takes memory for the algorithms of convolutions."""
    return net.context.engine.name == "cudnn" and any(layer.type in CONVOLUTIONS for layer in net.layers)
