"""What a net's training will take of memory, planned from the net as it is before it has run.

net ──> lifetimes (core/net) ──> planned pool and scratch ──> count_memory

Sizes of blobs are those of the layouts that are planned for them (value_sizes.py), all else those of plain arrays.
On GPUs the pool is cupy's, which fits what it lends much as ours does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from dtrain.core.blob import Blob
from dtrain.core.engines import GPU_ENGINES
from dtrain.core.layers.dummy_data import DummyData
from dtrain.core.layers.layer import Layer
from dtrain.core.memory_pool import Gaps, whole_lines
from dtrain.core.net.lifetimes import Again, Value
from dtrain.core.net.memory_sharing import find_net_lifetimes
from dtrain.core.net.net import Net
from dtrain.core.tensor import Storage
from dtrain.launcher.simulation.value_sizes import CONVOLUTIONS, rounded_blobs, storage_bytes
from dtrain.proto import caffe_pb2

_ENDLESS_BYTES = 1 << 60
_KEEPING = ("onednn", "cudnn")  # engines that keep in the pool what they write over
# A convolution's compiled code, descriptors and Python objects, forward and backward; others take little. Measured on
# chains made for it: 33 convolutions of 16 to 64 channels, by turns 1x1 and 5x5, took 16.4 MB more than one.
_CONVOLUTION_BYTES = {"onednn": 500_000}
_FLOAT64_BYTES = 8
_ROUNDING = CONVOLUTIONS | {"InnerProduct"}


def plan_pool(net: Net, again: Again | None = None) -> int:
    """Return how much of a pool a pass of `net` needs if its blobs share memory as in training.

    again: which layers run forward again before which backward. An engine with layouts of its own also has each
    weight in one while its layer runs.
    """
    return _Pass(net, again or {}, storage_bytes(net), Gaps(_ENDLESS_BYTES)).run()


def plan_least(net: Net, again: Again | None = None) -> int:
    """Return the most bytes of blobs that are needed at once in such a pass: no pool can do with less."""
    return _Pass(net, again or {}, storage_bytes(net, least=True), None).run()


class _Pass:
    """One pass of a net as its pool sees it: where each storage's values would lie, and what goes with them.

    sizes: of storages, by their ids. gaps: of the pool; None: where things lie, and what goes with values, is not
    looked at.
    """

    def __init__(self, net: Net, again: Again, sizes: Mapping[int, int], gaps: Gaps | None) -> None:
        self._net = net
        self._again = again
        self._runs_again = {i for layers in again.values() for i in layers}
        self._lifetimes = find_net_lifetimes(net, again)
        self._pooled = set(self._lifetimes.values)
        self._keeps = gaps is not None and net.context.engine.name in _KEEPING
        self._has_layouts = gaps is not None and _has_layouts(net)
        self._sizes = sizes
        self._rounded = rounded_blobs(net)
        self._gaps = gaps
        self._lent_bytes = self._most_bytes = 0
        self._pieces: dict[object, tuple[int, int]] = {}  # of storages, by id, and of what layers keep

    def run(self) -> int:
        """Go through the pass; return the end of the farthest piece."""
        for i in range(len(self._net.layers)):
            self._forward(i, keeps=i not in self._runs_again)
            self._give_back(self._lifetimes.after_forward[i])
        for i in reversed(range(len(self._net.layers))):
            for k in self._again.get(i, ()):
                self._forward(k, keeps=True)
                self._give_back(self._lifetimes.after_again[k])
            self._run(i, _written_backward(self._net, i))
            for k in layers_behind(self._net, i):
                self._free(("kept", k))
                self._free(("rounded", k))
            self._give_back(self._lifetimes.after_backward[i])
        return self._gaps.peak if self._gaps is not None else self._most_bytes

    def _forward(self, i: int, keeps: bool) -> None:
        if self._keeps and self._net.phase == caffe_pb2.TRAIN:
            for k in layers_ahead(self._net, i):
                self._lend(("kept", k), kept_bytes(self._net, k, self._rounded))
                self._lend(("rounded", k), rounded_weight_bytes(self._net, k))
        self._run(i, _written_forward(self._net, i))
        if not keeps:
            for k in layers_ahead(self._net, i):
                self._free(("kept", k))
                self._free(("rounded", k))

    def _run(self, i: int, written: list[Value]) -> None:
        weights = _weight_bytes(self._net.layers[i]) if self._has_layouts else []
        for k, size in enumerate(weights):
            self._lend(("weight", k), size)
        for value in written:
            if value in self._pooled:
                storage = self._storage(value)
                self._lend(id(storage), self._sizes[id(storage)])
        for k in range(len(weights)):
            self._free(("weight", k))

    def _lend(self, key: object, num_bytes: int) -> None:
        """Have a piece for what is not there yet."""
        if num_bytes and key not in self._pieces:
            size = whole_lines(num_bytes)
            self._pieces[key] = (self._gaps.cut(size) or 0) if self._gaps is not None else 0, size
            self._lent_bytes += size
            self._most_bytes = max(self._most_bytes, self._lent_bytes)

    def _free(self, key: object) -> None:
        piece = self._pieces.pop(key, None)
        if piece is not None:
            self._lent_bytes -= piece[1]
            if self._gaps is not None:
                self._gaps.join(*piece)

    def _give_back(self, dead: tuple[Value, ...]) -> None:
        for value in dead:
            self._free(id(self._storage(value)))

    def _storage(self, value: Value) -> Storage:
        return _storage_of(self._net, value)


def layers_ahead(net: Net, i: int) -> range:
    """Return the layers whose forward runs when it is layer i's turn: none for the later ones of a group."""
    group = net.groups.get(i)
    if group is None:
        return range(i, i + 1)
    return range(i, group.last + 1) if i == group.first else range(0)


def layers_behind(net: Net, i: int) -> range:
    """Return the layers whose backward runs when it is layer i's turn: none for the earlier ones of a group."""
    group = net.groups.get(i)
    if group is None:
        return range(i, i + 1)
    return range(group.first, i + 1) if i == group.last else range(0)


def _written_forward(net: Net, i: int) -> list[Value]:
    layers = layers_ahead(net, i)
    return [Value(name) for name in net.top_names[layers[-1]]] if layers else []


def _written_backward(net: Net, i: int) -> list[Value]:
    group = net.groups.get(i)
    bottoms = group.bottoms if group is not None else [(i, k) for k in range(len(net.bottom_names[i]))]
    return [
        Value(net.bottom_names[k][place], True)
        for k, place in bottoms
        if layers_behind(net, i) and net.needs[k].layer and net.needs[k].bottoms[place]
    ]


def rounded_weight_bytes(net: Net, i: int) -> int:
    """Return the bytes of the 16-bit copy of layer i's weight that it has from forward to backward, if it gives its
    bottom a gradient: an inner product reads the copy again, a convolution makes another of it.
    """
    layer = net.layers[i]
    is_rounded = layer.type in _ROUNDING and net.context.engine.precision != "FLOAT32"
    return 2 * layer.blobs[0].count if is_rounded and net.needs[i].bottoms[0] else 0


def kept_bytes(net: Net, i: int, rounded: Collection[str] = ()) -> int:
    """Return what layer i keeps in the pool from forward to backward: BatchNorm in place the values it writes over,
    and on oneDNN with the ReLU behind it which of its values are not 0, a bit for each. rounded: blobs of 16 bits.
    """
    layer, bottoms, tops = net.layers[i], net.bottoms[i], net.tops[i]
    if layer.type != "BatchNorm" or not net.needs[i].layer:
        return 0
    group = net.groups.get(i)
    has_relu = (
        net.context.engine.name == "onednn" and group is not None and net.layers[group.last].type == "ReLU"
    )
    top = tops[0] if group is None else net.tops[group.last][0]
    size = 2 if net.bottom_names[i][0] in rounded else 4
    return bottoms[0].count * size * (top is bottoms[0]) + (bottoms[0].count // 8 if has_relu else 0)


def _has_layouts(net: Net) -> bool:
    """Return whether weights are in other layouts than plain ones while their layers run."""
    engine = net.context.engine
    return engine.name == "onednn" or (engine.name == "cudnn" and engine.precision != "FLOAT32")


def _weight_bytes(layer: Layer) -> list[int]:
    size = 2 if layer.engine.name == "cudnn" else 4  # there a rounded gradient
    return [size * layer.blobs[0].count] if layer.type in CONVOLUTIONS and layer.blobs else []


def plan_scratch(net: Net) -> int:
    """Return what layers and operations will keep beside blobs, as far as it is large.

    Copies of what they write over, factors of dropout, probabilities, places of maxima; and the largest gradient of a
    weight, which lies in a layout before it is added.
    """
    fused = net.fused_layers
    kept = sum(
        _KEPT[layer.type](Use(layer, bottoms, tops, i in fused))
        for i, (layer, bottoms, tops) in enumerate(zip(net.layers, net.bottoms, net.tops, strict=True))
        if layer.type in _KEPT
    )
    return kept + max((size for layer in net.layers for size in _weight_bytes(layer)), default=0)


def plan_operations(net: Net) -> int:
    """Return what the layers' operations take by themselves, beside all arrays."""
    num_convolutions = sum(layer.type in CONVOLUTIONS for layer in net.layers)
    return num_convolutions * _CONVOLUTION_BYTES.get(net.context.engine.name, 0)


def plan_temporary(net: Net) -> int:
    """Return what the largest draw of random values takes before it is float32; all else is small."""
    dummies = [
        (layer, tops)
        for layer, tops in zip(net.layers, net.tops, strict=True)
        if isinstance(layer, DummyData)
    ]
    drawn = [tops[i].count for layer, tops in dummies for i, _ in layer.refills]
    return _FLOAT64_BYTES * max(drawn, default=0)


class Use(NamedTuple):
    """A layer in its net. is_fused: whether it runs as one with a neighbour."""

    layer: Layer
    bottoms: list[Blob]
    tops: list[Blob]
    is_fused: bool

    @property
    def num_values(self) -> int:
        """The number of values of bottom 0."""
        return self.bottoms[0].count

    @property
    def is_in_place(self) -> bool:
        """Whether the layer writes over bottom 0."""
        return self.bottoms[0] is self.tops[0]

    @property
    def engine(self) -> str:
        """The name of the engine."""
        return self.layer.engine.name


def _normalised(use: Use) -> int:
    return 0 if use.engine in _KEEPING else 4 * use.num_values


def _scaled(use: Use) -> int:
    return 0 if use.is_fused else 4 * use.num_values * (1 + use.is_in_place)


def _dropped(use: Use) -> int:
    return 0 if use.engine in GPU_ENGINES else 4 * use.num_values  # which draw the mask again


def _pooled(use: Use) -> int:
    pool = use.layer.param.pooling_param.pool
    has_places = use.engine == "cudnn" and pool == caffe_pb2.PoolingParameter.MAX
    return use.tops[0].count if has_places else 0


# How many bytes a layer of a type keeps from forward to backward, or needs between them.
_KEPT: dict[str, Callable[[Use], int]] = {
    "BatchNorm": _normalised,
    "Scale": _scaled,
    "Dropout": _dropped,
    "Pooling": _pooled,
    "SoftmaxWithLoss": lambda use: 4 * use.num_values,
}


def written_storages(net: Net) -> Iterator[Storage]:
    """Yield the storages of values that a pass writes: all that have memory where blobs share none."""
    for i in range(len(net.layers)):
        backward = _written_backward(net, i) if net.phase == caffe_pb2.TRAIN else []
        for value in (*_written_forward(net, i), *backward):
            yield _storage_of(net, value)


def _storage_of(net: Net, value: Value) -> Storage:
    blob = net.blobs[value.blob]
    return (blob.diff_tensor if value.is_diff else blob.data_tensor).storage


def kept_storages(net: Net) -> Iterator[Storage]:
    """Yield the storages of values that don't die: outputs, losses with their weights, inputs."""
    pooled = set(find_net_lifetimes(net).values)
    for name, blob in net.blobs.items():
        if Value(name) not in pooled:
            yield blob.data_tensor.storage
    if net.phase != caffe_pb2.TRAIN:  # no backward
        return
    for bottoms, names, needs in zip(net.bottoms, net.bottom_names, net.needs, strict=True):
        for blob, name, wanted in zip(bottoms, names, needs.bottoms, strict=True):
            if needs.layer and wanted and Value(name, True) not in pooled:
                yield blob.diff_tensor.storage
    for tops, weights in zip(net.tops, net.loss_weights, strict=True):
        yield from (blob.diff_tensor.storage for blob, weight in zip(tops, weights, strict=True) if weight)
