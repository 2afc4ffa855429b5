"""What a net's training will take of memory, planned from the net as it is before it has run.

net ──> lifetimes (core/net) ──> planned pool and scratch ──> count_memory

Sizes are those of plain arrays: what engines fill layouts up with is not known before they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dtrain.core.blob import Blob
from dtrain.core.layers.dummy_data import DummyData
from dtrain.core.layers.layer import Layer
from dtrain.core.memory_pool import Gaps, whole_lines
from dtrain.core.net.lifetimes import Value
from dtrain.core.net.memory_sharing import find_net_lifetimes
from dtrain.core.net.net import Net
from dtrain.core.tensor import Storage

_ENDLESS_BYTES = 1 << 60
# A convolution's compiled code, descriptors and Python objects, forward and backward. Measured on ten nets of
# configs/: what they took beyond all that was counted, 0.5 to 0.7 MB for each convolution; others take little.
_CONVOLUTION_BYTES = {"onednn": 600_000}
_FLOAT64_BYTES = 8
_CONVOLUTIONS = ("Convolution", "Deconvolution", "ConvolutionDepthwise", "DepthwiseConvolution")


def plan_pool(net: Net) -> int:
    """Return how much of a pool a pass of `net` needs if its blobs share memory as in training.

    An engine with layouts of its own also has each weight in one while its layer runs.
    """
    lifetimes = find_net_lifetimes(net)
    pooled = set(lifetimes.values)
    planned = _PlannedPool(net)
    has_layouts = net.layers[0].engine.name != "reference" if net.layers else False

    def step(i: int, written: list[Value], dead: tuple[Value, ...]) -> None:
        weights = [planned.lend(size) for size in _weight_bytes(net.layers[i]) if has_layouts]
        for value in written:
            if value in pooled:
                planned.write(value)
        for piece in weights:
            planned.gaps.join(*piece)
        for value in dead:
            planned.give_back(value)

    for i, tops in enumerate(net.top_names):
        step(i, [Value(name) for name in tops], lifetimes.after_forward[i])
    for i in reversed(range(len(net.layers))):
        gives = zip(net.bottom_names[i], net.needs[i].bottoms, strict=True)
        written = [Value(name, True) for name, wanted in gives if wanted and net.needs[i].layer]
        step(i, written, lifetimes.after_backward[i])
    return planned.gaps.peak


class _PlannedPool:
    """A pool's arithmetic: where each storage's values would lie."""

    def __init__(self, net: Net) -> None:
        self.gaps = Gaps(_ENDLESS_BYTES)
        self._net = net
        self._pieces: dict[int, tuple[int, int]] = {}

    def lend(self, num_bytes: int) -> tuple[int, int]:
        """Return start and size of a piece."""
        size = whole_lines(num_bytes)
        return self.gaps.cut(size) or 0, size

    def write(self, value: Value) -> None:
        """Have a piece for a value, that of its storage if it has one."""
        storage = self._storage(value)
        if id(storage) not in self._pieces:
            self._pieces[id(storage)] = self.lend(storage.capacity * storage.dtype.itemsize)

    def give_back(self, value: Value) -> None:
        """Give back the piece of a value's storage, if it has one."""
        piece = self._pieces.pop(id(self._storage(value)), None)
        if piece is not None:
            self.gaps.join(*piece)

    def _storage(self, value: Value) -> Storage:
        blob = self._net.blobs[value.blob]
        return (blob.diff_tensor if value.is_diff else blob.data_tensor).storage


def _weight_bytes(layer: Layer) -> list[int]:
    return [4 * layer.blobs[0].count] if layer.type in _CONVOLUTIONS and layer.blobs else []


def plan_scratch(net: Net) -> int:
    """Return what layers and operations will keep beside blobs, as far as it is large.

    Copies of what they write over, factors of dropout, probabilities; and the largest gradient of a weight, which
    lies in a layout before it is added.
    """
    fused = net.fused_layers
    kept = sum(
        4 * _KEPT[layer.type](Use(layer, bottoms, tops, i in fused))
        for i, (layer, bottoms, tops) in enumerate(zip(net.layers, net.bottoms, net.tops, strict=True))
        if layer.type in _KEPT
    )
    return kept + max((size for layer in net.layers for size in _weight_bytes(layer)), default=0)


def plan_operations(net: Net) -> int:
    """Return what the layers' operations take by themselves, beside all arrays."""
    num_convolutions = sum(layer.type in _CONVOLUTIONS for layer in net.layers)
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


def _normalised(use: Use) -> int:
    return use.num_values if use.is_in_place or use.layer.engine.name == "reference" else 0


def _scaled(use: Use) -> int:
    return 0 if use.is_fused else use.num_values * (1 + use.is_in_place)


# How many values a layer of a type keeps from forward to backward, or needs between them, in float32.
_KEPT: dict[str, Callable[[Use], int]] = {
    "BatchNorm": _normalised,
    "Scale": _scaled,
    "Dropout": lambda use: use.num_values,
    "SoftmaxWithLoss": lambda use: use.num_values,
}


def kept_storages(net: Net) -> Iterator[Storage]:
    """Yield the storages of values that don't die: outputs, losses with their weights, inputs."""
    pooled = set(find_net_lifetimes(net).values)
    for name, blob in net.blobs.items():
        if Value(name) not in pooled:
            yield blob.data_tensor.storage
    for bottoms, names, needs in zip(net.bottoms, net.bottom_names, net.needs, strict=True):
        for blob, name, wanted in zip(bottoms, names, needs.bottoms, strict=True):
            if needs.layer and wanted and Value(name, True) not in pooled:
                yield blob.diff_tensor.storage
    for tops, weights in zip(net.tops, net.loss_weights, strict=True):
        yield from (blob.diff_tensor.storage for blob, weight in zip(tops, weights, strict=True) if weight)
