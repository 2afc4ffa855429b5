"""What a rank's training takes of memory, part by part, counted on the net itself.

In a prediction this stands beside the times: it is the same on any number of ranks.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from dtrain.core.engines import Engine
from dtrain.core.net.arena import Arena
from dtrain.core.net.memory_sharing import find_net_again, share_memory
from dtrain.core.net.net import Net
from dtrain.core.solver.extra_values import NUM_EXTRA
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.tensor import Storage
from dtrain.data.loader import Loader
from dtrain.launcher.simulation.memory_plan import (
    kept_storages,
    plan_operations,
    plan_pool,
    plan_scratch,
    plan_temporary,
)
from dtrain.launcher.simulation.memory_process import measure_process
from dtrain.launcher.simulation.value_sizes import CONVOLUTIONS
from dtrain.proto import caffe_pb2

_OPAQUE = (type, ModuleType, FunctionType, Loader, Engine)


def count_training(net: Net, solver: caffe_pb2.SolverParameter) -> dict[str, int]:
    """Return what count_memory says of `net` before it has run: fused and with an arena, as training has it."""
    net.fuse()
    return count_memory(net, Arena(net.param_table.with_gradients, NUM_EXTRA), solver)


@dataclass(frozen=True)
class Passes:
    """What passes of a net have taken: at most beside what it keeps, and of the pool that its blobs share."""

    temporary_bytes: int
    pool_bytes: int


def count_memory(
    net: Net, arena: Arena, solver: caffe_pb2.SolverParameter, passes: Passes | None = None
) -> dict[str, int]:
    """Return the bytes of each part of what `dtrain train` takes at its peak on a rank that trains `net` by `solver`.

    process: Python, libraries and the engine, measured on a process of its own. params; gradients, which lie in
    `arena`, with what travels in their place; history, with the average of the weights. blobs: their data and
    gradients, which share memory but for those that are kept; batches that readers keep ready; scratch: what layers
    and their operations keep; operations: their code and tables; temporary: what is there for a moment.

    passes: what a net that has run took (measure_passes). Without it blobs and scratch are planned from the net,
    which does not know what the reference engine lowers convolutions to.

    Test nets, MPI and a snapshot under way (one more copy of params and history) are not in it.
    """
    params = net.learnable_params
    in_arena = {id(param) for param in arena.params}
    num_values = sum(param.blob.count for param in params)
    extra = solver.dtrain_param
    averages = arena.data.nbytes if extra.ema_decay else 0
    again = find_net_again(net) if extra.recompute else {}
    pool_bytes = passes.pool_bytes if passes else plan_pool(net, again)
    return {
        "process": measure_process(net.context.engine.name, _precision(extra), _convolves(net)),
        "params": arena.data.nbytes + sum(4 * p.blob.count for p in params if id(p) not in in_arena),
        "gradients": _gradient_bytes(arena, extra),
        "history": 4 * num_values * UPDATE_RULES[solver.type].num_histories + averages,
        "blobs": pool_bytes + _storage_bytes(kept_storages(net)),
        "batches": sum(_batch_bytes(layer.loader) for layer in net.reading_layers),
        "scratch": _scratch_bytes(net, arena, has_run=passes is not None)
        + (0 if passes else plan_scratch(net)),
        "operations": plan_operations(net),
        "temporary": passes.temporary_bytes if passes else plan_temporary(net),
    }


def _precision(extra: caffe_pb2.DtrainSolverParameter) -> str:
    return caffe_pb2.Precision.Name(extra.precision)


def _convolves(net: Net) -> bool:
    return any(layer.type in CONVOLUTIONS for layer in net.layers)


def measure_passes(net: Net, recomputes: bool = False) -> Passes:
    """Run `net` forward and backward twice, its blobs sharing memory as in training, also afterwards."""
    pool = share_memory([net], recomputes)
    for is_traced in (False, True):
        if is_traced:
            tracemalloc.start()
        net.clear_param_diffs()  # as before each iteration: gradients are then written, not added
        net.forward()
        net.backward()
    temporary_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Passes(temporary_bytes, pool.peak_bytes)


def _gradient_bytes(arena: Arena, extra: caffe_pb2.DtrainSolverParameter) -> int:
    """Return the size of the gradients, of their copy if they are used late, and of what travels if that is less."""
    copies = 3 if extra.stale_gradients else 1  # the copy, and one more while the two are swapped
    is_float32 = extra.wire_precision == caffe_pb2.DtrainSolverParameter.FLOAT32
    return copies * arena.reduced.nbytes + (0 if is_float32 else arena.reduced.nbytes // 2)


def _storage_bytes(storages: Iterable[Storage]) -> int:
    distinct = {id(storage): storage for storage in storages}
    return sum(
        storage.capacity * storage.dtype.itemsize * max(1, len(storage.copies))
        for storage in distinct.values()
    )


def _batch_bytes(loader: Loader) -> int:
    num_values = sum(int(np.prod(shape, dtype=np.int64)) for shape in loader.shapes)
    return 4 * loader.num_buffers * loader.batch_size * num_values


def _scratch_bytes(net: Net, arena: Arena, has_run: bool) -> int:
    """Return the size of all arrays that a net refers to, beside blobs, params and batches.

    Once it has run, those that are still 0 (of layouts in which nothing has come) have not been given memory.
    """
    blobs = [*net.blobs.values(), *(param.blob for param in net.learnable_params)]
    storages = [tensor.storage for blob in blobs for tensor in (blob.data_tensor, blob.diff_tensor)]
    known = {id(owner_of(copy)) for storage in storages for copy in storage.copies.values()}
    known.update(id(owner_of(array)) for array in (arena.data, arena.reduced))
    owners = {id(owner_of(array)): owner_of(array) for array in find_arrays(net)}
    unknown = [array for key, array in owners.items() if key not in known and array.base is None]
    return sum(array.nbytes for array in unknown if not has_run or array.any())


def owner_of(array: np.ndarray) -> np.ndarray:
    """Return the array whose memory `array` is a view of, or itself."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def find_arrays(root: Any) -> list[np.ndarray]:
    """Return all arrays that can be reached from `root` through attributes and containers, each once."""
    seen: set[int] = set()
    found, waiting = [], [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _OPAQUE):
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            found.append(item)
        else:
            waiting.extend(gc.get_referents(item))
    return found
