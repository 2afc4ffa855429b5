"""What one rank has to do in an iteration: each layer's seconds, and the gradients in the order of their being ready.

In a prediction this comes from the net itself, set up with its real shapes; timeline.py runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dtrain.core.net.arena import Arena
from dtrain.core.net.net import Net
from dtrain.core.solver.gradient_exchange import buckets_of
from dtrain.proto import caffe_pb2

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Costs:
    """Seconds of one rank that has a node to itself.

    forward_s, backward_s: of each layer of the net, in the order of forward. update_s: of updating all params and
    clearing their gradients. reading_s: of reading one batch, in threads beside the net's.
    """

    forward_s: tuple[float, ...]
    backward_s: tuple[float, ...]
    update_s: float = 0.0
    reading_s: float = 0.0

    @property
    def pass_s(self) -> float:
        """Seconds of one forward and backward."""
        return sum(self.forward_s) + sum(self.backward_s)


@dataclass(frozen=True)
class Bucket:
    """Gradients that travel together. layer_index: whose backward makes it ready."""

    layer_index: int
    num_bytes: int


@dataclass(frozen=True)
class Work:
    """An iteration of one rank.

    buckets: in the order in which they become ready. iter_size: passes an iteration. images: records a rank takes in
    an iteration. wire_bytes: of one value while it travels. waits_for_all: the update starts once all gradients are
    there, since they are clipped by their common norm. stale: an update takes the gradients of the iteration
    before.
    """

    costs: Costs
    buckets: tuple[Bucket, ...]
    iter_size: int
    images: int
    wire_bytes: int = FLOAT_BYTES
    waits_for_all: bool = False
    stale: bool = False

    @property
    def gradient_bytes(self) -> int:
        """The size of all gradients in float32."""
        return sum(bucket.num_bytes for bucket in self.buckets)


def make_work(net: Net, arena: Arena, solver: caffe_pb2.SolverParameter, costs: Costs) -> Work:
    """Return the work of training `net`, whose gradients lie in `arena`, by `solver`."""
    extra = solver.dtrain_param
    is_float32 = extra.wire_precision == caffe_pb2.DtrainSolverParameter.FLOAT32
    return Work(
        costs,
        tuple(make_buckets(arena, solver)),
        solver.iter_size,
        find_batch_size(net) * solver.iter_size,
        wire_bytes=FLOAT_BYTES if is_float32 else FLOAT_BYTES // 2,
        waits_for_all=solver.clip_gradients >= 0,
        stale=extra.stale_gradients,
    )


def make_buckets(arena: Arena, solver: caffe_pb2.SolverParameter) -> list[Bucket]:
    """Return the buckets as training makes them, the values that travel before the first gradient included.

    A shared param is ready when the first of its layers, which owns it, has run backward.
    """
    buckets, start, num_params = [], 0, 0
    for params in buckets_of(arena, solver):
        num_params += len(params)
        stop = arena.places[num_params - 1].stop if num_params else arena.reduced.size - arena.diff.size
        ready_at = min((param.layer_index for param in params), default=0)
        buckets.append(Bucket(ready_at, FLOAT_BYTES * (stop - start)))
        start = stop
    return buckets


def find_batch_size(net: Net) -> int:
    """Return how many records a pass takes: the length of the first blob's first axis; 1 if it has none."""
    shape = net.tops[0][0].shape if net.tops and net.tops[0] else ()
    return shape[0] if shape else 1
