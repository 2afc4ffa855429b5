"""A net to build: the prototxt that describes it, and its graph in a phase.

prototxt ──> net recipe ──> net
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.core.graph.graph import Graph, build_graph
from dtrain.core.graph.upgrade import NetDocument, upgrade_net
from dtrain.core.prototxt import read_text
from dtrain.data.synthetic_reader import Synthetic
from dtrain.proto import caffe_pb2


@dataclass(frozen=True)
class NetRecipe:
    """A net to build: its graph, and the document for places of its fields.

    synthetic: the wish that its data layers make up their records; None: they read them.
    """

    document: NetDocument
    graph: Graph
    synthetic: Synthetic | None = None


def read_net(path: str, phase: int, *, level: int = 0, stages: Sequence[str] = ()) -> NetRecipe:
    """Read the net file at `path` for a phase (caffe_pb2.TRAIN or TEST), level and stages.

    Raises UserError with every mistake of the file.
    """
    document = upgrade_net(read_text(path, caffe_pb2.NetParameter))
    state = caffe_pb2.NetState(phase=phase, level=level, stage=stages)  # type: ignore[arg-type]
    return build_net_recipe(document, phase, state)


def build_net_recipe(document: NetDocument, phase: int, state: caffe_pb2.NetState) -> NetRecipe:
    """Build the graph in the state, low to high: `phase`, the net file's own state, `state`."""
    merged = caffe_pb2.NetState(phase=phase)  # type: ignore[arg-type]
    merged.MergeFrom(document.message.state)
    merged.MergeFrom(state)
    return NetRecipe(document, build_graph(document, merged))
