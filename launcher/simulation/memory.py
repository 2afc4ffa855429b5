"""What a rank's training takes of memory, part by part, counted on the net itself.

In a prediction this stands beside the times: it is the same on any number of ranks.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from dtrain.core.net.arena import Arena
from dtrain.core.net.net import Net
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.tensor import Storage
from dtrain.data.loader import Loader
from dtrain.proto import caffe_pb2

_OPAQUE = (type, ModuleType, FunctionType, Loader)


def count_memory(
    net: Net, arena: Arena, solver: caffe_pb2.SolverParameter, temporary_bytes: int = 0
) -> dict[str, int]:
    """Return the bytes of each part of training `net`, whose gradients lie in `arena`, by `solver`.

    params; gradients, with what travels in their place; history, with the average of the weights; blobs and
    blob gradients, memory that several share counted once; batches that readers keep ready; scratch: what layers and
    their operations have allocated so far, which is little before the net has run; temporary: see measure_temporary.
    Python, its libraries and a snapshot under way (one more copy of params and history) are not in it.
    """
    params = net.learnable_params
    in_arena = {id(param) for param in arena.params}
    num_values = sum(param.blob.count for param in params)
    extra = solver.dtrain_param
    averages = arena.data.nbytes if extra.ema_decay else 0
    return {
        "params": arena.data.nbytes + sum(4 * p.blob.count for p in params if id(p) not in in_arena),
        "gradients": _gradient_bytes(arena, extra),
        "history": 4 * num_values * UPDATE_RULES[solver.type].num_histories + averages,
        "blobs": _storage_bytes(blob.data_tensor.storage for blob in net.blobs.values()),
        "blob gradients": _storage_bytes(_blob_diffs(net)),
        "batches": sum(_batch_bytes(layer.loader) for layer in net.reading_layers),
        "scratch": _scratch_bytes(net, arena),
        "temporary": temporary_bytes,
    }


def measure_temporary(net: Net) -> int:
    """Run `net` forward and backward once more; return how many bytes that takes at most beside what it keeps."""
    tracemalloc.start()
    try:
        net.forward()
        net.backward()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _gradient_bytes(arena: Arena, extra: caffe_pb2.DtrainSolverParameter) -> int:
    """Return the size of the gradients, of their copy if they are used late, and of what travels if that is less."""
    copies = 3 if extra.stale_gradients else 1  # the copy, and one more while the two are swapped
    is_float32 = extra.wire_precision == caffe_pb2.DtrainSolverParameter.FLOAT32
    return copies * arena.reduced.nbytes + (0 if is_float32 else arena.reduced.nbytes // 2)


def _blob_diffs(net: Net) -> Iterable[Storage]:
    """Yield the storage of each gradient that backward writes, and of each loss's weight."""
    for bottom, needs in zip(net.bottoms, net.needs, strict=True):
        for blob, wanted in zip(bottom, needs.bottoms, strict=True):
            if needs.layer and wanted:
                yield blob.diff_tensor.storage
    for top, weights in zip(net.tops, net.loss_weights, strict=True):
        yield from (blob.diff_tensor.storage for blob, weight in zip(top, weights, strict=True) if weight)


def _storage_bytes(storages: Iterable[Storage]) -> int:
    distinct = {id(storage): storage for storage in storages}
    return sum(
        storage.capacity * storage.dtype.itemsize * max(1, len(storage.copies))
        for storage in distinct.values()
    )


def _batch_bytes(loader: Loader) -> int:
    num_values = sum(int(np.prod(shape, dtype=np.int64)) for shape in loader.shapes)
    return 4 * loader.num_buffers * loader.batch_size * num_values


def _scratch_bytes(net: Net, arena: Arena) -> int:
    """Return the size of all arrays that layers refer to, beside blobs, params and batches."""
    blobs = [*net.blobs.values(), *(param.blob for param in net.learnable_params)]
    storages = [tensor.storage for blob in blobs for tensor in (blob.data_tensor, blob.diff_tensor)]
    known = {id(owner_of(copy)) for storage in storages for copy in storage.copies.values()}
    known.update(id(owner_of(array)) for array in (arena.data, arena.reduced))
    owners = {id(owner_of(array)): owner_of(array) for array in find_arrays(net.layers)}
    return sum(array.nbytes for key, array in owners.items() if key not in known)


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
