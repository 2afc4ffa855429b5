"""The gradient exchange: from the diffs that backward leaves on each rank to their sums over all ranks.

    net (backward) ──> gradient exchange ──> updater

It knows which params each layer's backward completes, so that a bucket's reduction starts as soon as its last
gradient is there and goes on while the layers below compute theirs. The reducer (dist/) does the reducing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dtrain.core.net.arena import Arena, swap_values
from dtrain.core.net.net import Net
from dtrain.core.net.params import Param
from dtrain.dist.buckets import plan_buckets
from dtrain.dist.communicator import Communicator
from dtrain.dist.reducer import Reducer
from dtrain.dist.wire import Bfloat16Wire, Float16Wire, Wire
from dtrain.proto import caffe_pb2


class GradientExchange:
    """Sums the diffs and the extra values of `arena`, the net's, over all ranks, bucket by bucket.

    Arguments:
        solver: its dtrain_param says bucket_bytes and wire_precision; with clip_gradients, or in
            FLOAT16, params of lr_mult 0 that have gradients are summed too, since they count in the norm.
        wire: what gradients travel as, instead of what the solver says.

    iteration: the one whose gradients `sums` gave last. can_overlap: whether it can sum while backward goes on.
    Making one is collective.
    """

    def __init__(
        self,
        net: Net,
        arena: Arena,
        communicator: Communicator,
        solver: caffe_pb2.SolverParameter,
        wire: Wire | None = None,
    ) -> None:
        self.iteration = 0
        self._arena = arena
        self._buckets = buckets_of(arena, solver)
        self._ready_at = [min((param.layer_index for param in bucket), default=0) for bucket in self._buckets]
        self._reducer = Reducer(
            communicator,
            self._reduced(communicator),
            self._slices(),
            [_title(bucket) for bucket in self._buckets],
            wire or make_wire(solver, communicator.world_size),
        )
        self.can_overlap = communicator.world_size > 1
        self._is_overlapping = False
        self._follow(net)

    @property
    def has_begun(self) -> bool:
        """Whether gradients of this iteration are being summed already."""
        return self._reducer.num_started > 0

    @property
    def has_pending(self) -> bool:
        """Whether sums are under way that no call of `sums` has given yet."""
        return False

    @contextmanager
    def overlapping(self) -> Iterator[None]:
        """Start to sum while the body runs backward, after which nobody may change what is summed. Collective."""
        self._is_overlapping = True
        try:
            yield
        finally:
            self._is_overlapping = False

    def sums(self, iteration: int) -> Iterator[Sequence[Param]]:
        """Yield the params of each bucket when their diffs are sums over all ranks. Collective.

        The extra values are summed when the first bucket is there.
        """
        self.iteration = iteration
        for bucket in self._buckets[self._reducer.num_started :]:
            self._arena.gather(bucket)
        for k in self._reducer.complete():
            yield self._buckets[k]

    def forget(self) -> None:
        """Let nothing have begun: what was started was to be part of a graph that has come to nothing."""
        self._reducer.forget()

    def settle(self) -> Iterator[Sequence[Param]]:
        """Yield as `sums` does what is pending, without summing anything new. Collective."""
        return iter(())

    def _reduced(self, communicator: Communicator) -> np.ndarray:
        """Return the memory that is reduced."""
        return self._arena.reduced

    def _follow(self, net: Net) -> None:
        """Ask `net` to be called when a layer's backward is done."""
        if self.can_overlap:
            net.callbacks.after_backward.append(self._after_backward)

    def _after_backward(self, layer_index: int) -> None:
        if not self._is_overlapping:
            return
        k = self._reducer.num_started
        while k < len(self._buckets) and self._ready_at[k] >= layer_index:
            self._arena.gather(self._buckets[k])
            k += 1
            self._reducer.start_to(k)
        self._reducer.move_on()

    def _slices(self) -> list[slice]:
        """Return where the buckets are in the arena; the extra values belong to the first."""
        num_before = self._arena.reduced.size - self._arena.diff.size
        slices, start, last = [], 0, 0
        for bucket in self._buckets:
            last += len(bucket)
            stop = self._arena.places[last - 1].stop if last else num_before
            slices.append(slice(start, stop))
            start = stop
        return slices


class StaleExchange(GradientExchange):
    """Gives the sums of the iteration before, while those of this one have all of the next to be reduced.

    Every gradient is given once: `settle` gives what is pending, for tests and snapshots, and the next iteration
    then has none. A copy of the arena is what is reduced.
    """

    _pending_iteration: int | None = None

    @property
    def has_begun(self) -> bool:
        return False

    @property
    def has_pending(self) -> bool:
        return self._pending_iteration is not None

    def sums(self, iteration: int) -> Iterator[Sequence[Param]]:
        """Yield the params of each bucket if there are sums of the iteration before, else nothing. Collective."""
        given = self._swap()
        self._pending_iteration = iteration
        self._reducer.start_to(len(self._buckets))
        yield from given

    def settle(self) -> Iterator[Sequence[Param]]:
        if not self.has_pending:
            return
        given = self._swap()
        self._pending_iteration = None
        yield from given

    def _reduced(self, communicator: Communicator) -> np.ndarray:
        self._copy = self._arena.zeros(self._arena.reduced.size, communicator.allocate)
        return self._copy

    def _follow(self, net: Net) -> None:
        self.can_overlap = False  # what backward leaves is copied first
        net.callbacks.after_forward.append(self._after_layer)
        net.callbacks.after_backward.append(self._after_layer)

    def _swap(self) -> Sequence[Sequence[Param]]:
        """Let the arena have the sums that are pending, 0 if there are none, and the copy what the arena has."""
        if self.has_pending:
            for _ in self._reducer.complete():
                pass
            self.iteration = self._pending_iteration or 0
        else:
            self._copy[...] = 0
        swap_values(self._arena.update_reduced(), self._copy)
        return self._buckets if self.has_pending else []

    def _after_layer(self, layer_index: int) -> None:
        self._reducer.move_on()


def make_exchange(
    net: Net,
    arena: Arena,
    communicator: Communicator,
    solver: caffe_pb2.SolverParameter,
    wire: Wire | None = None,
) -> GradientExchange:
    """Make the exchange that the solver's dtrain_param asks for. Collective."""
    kind = StaleExchange if solver.dtrain_param.stale_gradients else GradientExchange
    return kind(net, arena, communicator, solver, wire)


def buckets_of(arena: Arena, solver: caffe_pb2.SolverParameter) -> list[list[Param]]:
    """Return the params of each bucket; the first one may have none, for the sake of the extra values."""
    # What all gradients decide together must be the same on all ranks: clipping, and the loss scale.
    counts_frozen = solver.clip_gradients >= 0 or solver.dtrain_param.precision == caffe_pb2.FLOAT16
    params = [param for param in arena.params if param.learning_rate_multiplier or counts_frozen]
    sizes_bytes = [4 * param.blob.count for param in params]
    plan = plan_buckets(sizes_bytes, solver.dtrain_param.bucket_bytes)
    return [[params[k] for k in bucket] for bucket in plan] or [[]]


def make_wire(solver: caffe_pb2.SolverParameter, world_size: int) -> Wire | None:
    """Return what gradients travel as by the solver's wire_precision, None for as they are."""
    precision = solver.dtrain_param.wire_precision
    if precision == caffe_pb2.DtrainSolverParameter.FLOAT16:
        return Float16Wire(world_size)
    return Bfloat16Wire() if precision == caffe_pb2.DtrainSolverParameter.BFLOAT16 else None


def _title(params: Sequence[Param]) -> str:
    """Return for messages which layers' gradients are in a bucket."""
    if not params:
        return "no gradients"
    first, last = params[0].layer_name, params[-1].layer_name
    return f'gradients of layer "{first}"' + (f' to "{last}"' if last != first else "")
