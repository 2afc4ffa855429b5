"""No layer of the nets of configs/ goes over items or values in Python, which would cost it the more with each.

Counted, not timed: the lines of Python that forward and backward of each layer run through, with a few small images
and with more and larger ones. Layers that read records are not looked at; their threads work beside.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.graph.state_rules import is_included
from dtrain.core.layers import LAYERS
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.layers.pooling import Pooling
from dtrain.core.net.net import Net
from dtrain.core.prototxt import write_text
from dtrain.proto import caffe_pb2
from tests.bench.programs.made_up import narrowed
from tests.conftest import ROOT
from tests.core.net_builder import make_net

CONFIGS = ROOT / "configs"
NETS = sorted(path.parent.name for path in CONFIGS.glob("*/train_val.prototxt"))

NUM_CHANNELS = 8  # nets are that narrow, for the sake of time
NUM_ITEMS = 2, 8  # in a batch
MORE_PIXELS = (
    32,
    64,
)  # than the config's along each side: with as many as there, the last pooling sees all of its input
# Lines that may come or go with the sizes, since another layout or primitive is taken. A loop over items has two for
# each of 6 more at least.
FEW_LINES = 11

# What the reading layers of a net give for N items, where it isn't `data` of the deploy net's shape and `label`.
RECORDS: dict[str, Callable[[int], dict[str, tuple[int, ...]]]] = {
    "lstm": lambda n: {"data": (8, n, 8), "cont": (8, n), "label": (8, n)},
    "mnist_siamese": lambda n: {"pair_data": (n, 2, 28, 28), "sim": (n,)},
}
OF_ONE_SIZE = {"lstm", "mnist_autoencoder"}  # num_output of a layer is the number of pixels, or of features

SMALL_NETS = ("cifar10_full", "digits", "lenet", "lstm", "mnist_autoencoder", "mnist_siamese", "smile")
# The reference engine lowers a convolution in blocks of images, each as large as the cache: a line per block, beside
# some million multiplications.
GROWING_ON_REFERENCE = {"Convolution"}

Key = tuple[str, str]  # the layer and "forward" or "backward"


def net_text(name: str, num_items: int, more_pixels: int) -> str:
    """Return the train net of a config, narrow, with an Input layer in the place of each that reads records."""
    recipe = read_net(str(CONFIGS / name / "train_val.prototxt"), caffe_pb2.TRAIN)
    shapes = record_shapes(name, num_items, more_pixels)
    net = caffe_pb2.NetParameter(name=name)
    for layer in recipe.document.message.layer:
        if not is_included(layer, recipe.graph.state):
            continue
        if issubclass(LAYERS[layer.type], ReadingLayer):
            layer = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top)
            for top in layer.top:
                layer.input_param.shape.add(dim=shapes[top])
        net.layer.append(layer)
    text = write_text(net)
    return text if name in OF_ONE_SIZE else narrowed(text, NUM_CHANNELS)


def record_shapes(name: str, num_items: int, more_pixels: int) -> dict[str, tuple[int, ...]]:
    if name in RECORDS:
        return RECORDS[name](num_items)
    deploy = read_net(str(CONFIGS / name / "deploy.prototxt"), caffe_pb2.TEST).graph.to_param()
    _, channels, *sides = deploy.layer[0].input_param.shape[0].dim
    more = 0 if name in OF_ONE_SIZE else more_pixels
    return {"data": (num_items, channels, *(side + more for side in sides)), "label": (num_items,)}


@contextmanager
def lines_counted(count: Counter[Key], key: Key) -> Iterator[None]:
    """Count the calls and lines of Python in the body, without those that tidy up after other tests."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        count[key] += event in ("call", "line")
        return trace

    before = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        gc.enable()


def count_lines(net: Net) -> Counter[Key]:
    """Return the lines that each layer runs through in a pass that is not its first."""
    count: Counter[Key] = Counter()

    def counted(direction: str, run: Callable[[int], Any]) -> Callable[[int], Any]:
        def run_counted(i: int) -> Any:
            with lines_counted(count, (net.layer_names[i], direction)):
                return run(i)

        return run_counted

    for _ in range(2):
        net.forward()
        net.backward()
    observed: Any = net
    observed.run_layer = counted("forward", net.run_layer)
    observed.backward_layer = counted("backward", net.backward_layer)
    net.forward()
    net.backward()
    return count


def lines_of(name: str, engine: Engine, num_items: int, more_pixels: int) -> Counter[Key]:
    with closing(make_net(net_text(name, num_items, more_pixels), engine=engine)) as net:
        net.fuse()
        return count_lines(net)


def growing(name: str, engine: Engine) -> dict[Key, tuple[int, int]]:
    """Return the passes that run through more lines with more and larger images, and how many with few and many."""
    few, many = (lines_of(name, engine, *sizes) for sizes in zip(NUM_ITEMS, MORE_PIXELS, strict=True))
    assert few.keys() == many.keys()
    return {key: (few[key], many[key]) for key in few if many[key] > few[key] + FEW_LINES}


@pytest.fixture(scope="module")
def onednn() -> Engine:
    try:
        return create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")


@pytest.mark.parametrize("name", NETS)
def test_layers_of_config_with_more_and_larger_images_run_through_as_many_lines(
    name: str, onednn: Engine
) -> None:
    assert growing(name, onednn) == {}


@pytest.mark.parametrize("name", SMALL_NETS)
def test_layers_of_config_on_the_reference_engine_but_convolutions_run_through_as_many_lines(
    name: str,
) -> None:
    net = read_net(str(CONFIGS / name / "train_val.prototxt"), caffe_pb2.TRAIN).document.message
    types = {layer.name: layer.type for layer in net.layer}
    layers = {layer for layer, _ in growing(name, create_engine("reference"))}
    assert {types[layer] for layer in layers} <= GROWING_ON_REFERENCE


def test_lines_of_a_layer_that_loops_over_items_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Pooling.forward

    def forward_item_by_item(layer: Pooling, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for _ in range(bottom[0].shape[0]):
            layer.name = str(layer.name)
        forward(layer, bottom, top)

    monkeypatch.setattr(Pooling, "forward", forward_item_by_item)
    assert set(growing("lenet", create_engine("reference"))) >= {("pool1", "forward"), ("pool2", "forward")}
