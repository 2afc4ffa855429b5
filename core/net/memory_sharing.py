"""Blobs of a net that share memory: what dies gives its bytes back, and what is written next takes them.

    net ──> lifetimes ──> memory sharing ──> pool (core/memory_pool.py)

For nets that nobody looks into: a solver's, in `dtrain train`. All nets of a rank can share one pool, since they run
one after the other and leave nothing in it. With recomputation (recomputation.py) much dies in forward already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dtrain.core.layers.layer import Layer
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.layers.python import Python
from dtrain.core.memory_pool import MemoryPool
from dtrain.core.net.lifetimes import Again, LayerUse, Lifetimes, Value, find_lifetimes
from dtrain.core.net.net import Net
from dtrain.core.net.recomputation import find_again, let_go, run_again
from dtrain.core.tensor import Memory, Storage, Tensor
from dtrain.proto import caffe_pb2


def share_memory(nets: Sequence[Net], recomputes: bool = False) -> MemoryPool:
    """Let the blobs of `nets`, which run in turn, share the memory of one new pool from now on; return it.

    Afterwards a blob can be read while a layer still needs it; later it is a UserError that names the blob. Outputs,
    losses, tops of layers that write them once (Input, DummyData, Parameter) or always in one place (those that read,
    on a GPU), blobs of Python layers and those whose array somebody holds stay as they are.

    recomputes: whether nets in training keep the data at a few places only, and compute the rest again in backward.
    """
    pool = MemoryPool()
    for net in nets:
        again = find_net_again(net) if recomputes else {}
        sharing = _Sharing(net, again, pool)
        callbacks = net.callbacks
        for calls in (callbacks.before_backward, callbacks.done_forward, callbacks.done_backward):
            calls[:] = [old for old in calls if not isinstance(getattr(old, "__self__", None), _Sharing)]
        callbacks.before_backward.insert(
            0, sharing.before_backward
        )  # others may look at what is computed again
        callbacks.done_forward.append(sharing.after_forward)
        callbacks.done_backward.append(sharing.after_backward)
    return pool


def find_net_again(net: Net) -> Again:
    """Return which layers of `net` run forward again before which backward, if it recomputes; none in tests."""
    if net.phase != caffe_pb2.TRAIN:
        return {}
    uses, kept, shared = _uses(net), _kept(net), _shared(net)
    return find_again(net, uses, kept, lambda again: find_lifetimes(uses, kept, shared, again=again))


def find_net_lifetimes(net: Net, again: Again | None = None) -> Lifetimes:
    """Return when the blobs of `net` die: in training after their last use in backward, in tests in forward.

    again: which layers run forward again before which backward.
    """
    return find_lifetimes(_uses(net), _kept(net), _shared(net), net.phase == caffe_pb2.TRAIN, again)


def _uses(net: Net) -> list[LayerUse]:
    uses = []
    for layer, needs, bottoms, tops in zip(
        net.layers, net.needs, net.bottom_names, net.top_names, strict=True
    ):
        reads = layer.backward_reads_bottoms, layer.backward_reads_tops
        uses.append(LayerUse(tuple(bottoms), tuple(tops), needs.layer, tuple(needs.bottoms), *reads))
    return uses


class _Sharing:
    """Gives back the memory of one net's values as they die, and has those computed again that are wanted again."""

    def __init__(self, net: Net, again: Again, pool: MemoryPool) -> None:
        self._net = net
        self._again = again
        self._pool = pool
        self._runs_again = {i for layers in again.values() for i in layers}
        for layer in net.layers if net.phase != caffe_pb2.TRAIN else ():
            layer.runs_backward = False  # nothing would be left to run it on
        self._pass_index = 0
        lifetimes = find_net_lifetimes(net, again)
        tensors = {value: _tensor(net, value) for value in lifetimes.values}
        for storage in {id(tensor.storage): tensor.storage for tensor in tensors.values()}.values():
            storage.borrow_from(pool)
        self._dead_after_forward, self._dead_after_again, self._dead_after_backward = (
            [[(tensors[value], str(value)) for value in step] for step in steps]
            for steps in (lifetimes.after_forward, lifetimes.after_again, lifetimes.after_backward)
        )
        weights = ((i, _Weights(net, i, pool)) for i in range(len(net.layers)))
        self._weights = {i: each for i, each in weights if each.storages}

    def after_forward(self, i: int) -> None:
        """Give back what nobody reads any more once layer i has run forward."""
        if i in self._runs_again:
            let_go(self._net, i)
            self._pass_index = self._net.context.random.pass_index
        self._give_back(self._dead_after_forward[i])
        if i in self._weights:
            self._weights[i].after_forward(runs_again=i in self._runs_again)

    def before_backward(self, i: int) -> None:
        """Have computed again what backward of layer i and of those before it needs."""
        if i in self._again:
            run_again(self._net, self._again[i], self._pass_index, self._after_again)

    def _after_again(self, i: int) -> None:
        self._give_back(self._dead_after_again[i])
        if i in self._weights:
            self._weights[i].after_forward()

    def after_backward(self, i: int) -> None:
        """Give back what nobody reads any more once layer i has run backward."""
        self._give_back(self._dead_after_backward[i])
        if i in self._weights:
            self._weights[i].after_backward()

    def _give_back(self, dead: Sequence[tuple[Tensor, str]]) -> None:
        """Give back the memory of what is dead, and of layouts of values that have been written over."""
        for tensor, title in dead:
            tensor.storage.give_back(title)
        self._pool.catch_up()


class _Weights:
    """The layouts of what layer i of a net learns: copies that the update makes void.

    Until then a copy is kept from forward to backward if backward reads that layout too, which its first run shows,
    or another one that rounds as it does: that is made of it sooner than of the host's.
    """

    def __init__(self, net: Net, i: int, pool: MemoryPool) -> None:
        learns = net.phase == caffe_pb2.TRAIN and any(net.needs[i].params)
        self.storages = [blob.data_tensor.storage for blob in net.layers[i].blobs] if learns else []
        self._read: list[Collection[Memory]] = [()] * len(self.storages)
        for storage in self.storages:
            storage.drop_layouts()
            storage.pool = pool

    def after_forward(self, runs_again: bool = False) -> None:
        """Drop the copies that backward has no use for, or all if forward `runs_again` before it."""
        for k, storage in enumerate(self.storages):
            if len(storage.copies) > 1:
                storage.drop_layouts(() if runs_again else self._wanted(storage, self._read[k]))

    def after_backward(self) -> None:
        """Drop all copies."""
        for k, storage in enumerate(self.storages):
            if len(storage.copies) > 1:
                self._read[k] = self._read[k] or frozenset(storage.copies)
                storage.drop_layouts()

    @staticmethod
    def _wanted(storage: Storage, read: Collection[Memory]) -> Collection[Memory]:
        """Return the copies that backward reads, or makes one of that it reads."""
        rounds = any(memory.rounds for memory in read)
        return [memory for memory in storage.copies if memory in read or (memory.rounds and rounds)]


def _tensor(net: Net, value: Value) -> Tensor:
    blob = net.blobs[value.blob]
    return blob.diff_tensor if value.is_diff else blob.data_tensor


def _kept(net: Net) -> set[str]:
    """Return the blobs that must not lose their values."""
    kept = {*net.outputs, *(name for name, weight in net.blob_loss_weights.items() if weight)}
    for layer, bottoms, tops in zip(net.layers, net.bottom_names, net.top_names, strict=True):
        if isinstance(layer, Python):
            kept.update(bottoms, tops)
        elif not bottoms and not (isinstance(layer, ReadingLayer) and layer.moves_tops):
            kept.update(tops)
    params = {id(param.blob.data_tensor.storage) for param in net.learnable_params}
    for name, blob in net.blobs.items():
        storages = blob.data_tensor.storage, blob.diff_tensor.storage
        if any(storage.is_shown or id(storage) in params for storage in storages):
            kept.add(name)
    return kept


def _shared(net: Net) -> list[list[Value]]:
    """Return the values that are in one memory, and the diffs that may be once backward has run."""
    by_storage: dict[int, list[Value]] = {}
    for name in net.blobs:
        for value in (Value(name), Value(name, True)):
            storage: Storage = _tensor(net, value).storage
            by_storage.setdefault(id(storage), []).append(value)
    diffs = [
        [Value(name, True) for name in (*bottoms, *tops)]
        for layer, bottoms, tops in zip(net.layers, net.bottom_names, net.top_names, strict=True)
        if may_share_diffs(layer, len(bottoms), len(tops))
    ]
    return [values for values in by_storage.values() if len(values) > 1] + diffs


def may_share_diffs(layer: Layer, num_bottoms: int, num_tops: int) -> bool:
    """Return whether a layer's bottom may have the diff of its top for its own: those that only show a blob do so."""
    return layer.shares_diffs and num_bottoms == num_tops == 1
