"""Builds graphs and nets from prototxt in a test's own text, as recipe.py does from files."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Engine
from dtrain.core.graph.graph import Graph, build_graph
from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.layers.layer import LayerContext
from dtrain.core.net.net import Net
from dtrain.core.prototxt import Document, parse_text
from dtrain.core.random_streams import RandomStreams
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
PATH = "net.prototxt"


def make_recipe(text: str, phase: int = TRAIN, level: int = 0, stages: Sequence[str] = ()) -> NetRecipe:
    """Return the document and graph of a net's text in a state."""
    document: Document[caffe_pb2.NetParameter] = upgrade_net(parse_text(text, caffe_pb2.NetParameter, PATH))
    state = caffe_pb2.NetState(phase=phase, level=level, stage=stages)  # type: ignore[arg-type]
    return NetRecipe(document, build_graph(document, state))


def make_graph(text: str, phase: int = TRAIN, level: int = 0, stages: Sequence[str] = ()) -> Graph:
    """Return the graph of a net's text in a state."""
    return make_recipe(text, phase, level, stages).graph


def make_net(
    text: str, phase: int = TRAIN, seed: int = 1, rank: int = 0, engine: Engine | None = None
) -> Net:
    """Return a net's text as a net, on the reference engine unless told otherwise."""
    engine = engine or create_engine("reference")
    context = LayerContext(phase, engine, RandomStreams(seed, rank), Shard(0, 1))
    return Net(make_recipe(text, phase), context)


def inputs(**shapes: Sequence[int]) -> str:
    """Return an Input layer for each blob and its shape."""
    return "\n".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {n}' for n in shape)} }} }} }}"
        for name, shape in shapes.items()
    )
