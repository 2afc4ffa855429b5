"""The graph: the layers of a prototxt net that are in for a phase, connected, with splits inserted.

    prototxt ──> graph ──> net

Building a graph checks everything that can be said without shapes, and reports all mistakes at once.
Follows caffe's net.cpp (Net::Init up to the layers' SetUp).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from dtrain.core.errors import Problems
from dtrain.core.graph.node import Node
from dtrain.core.graph.splits import insert_splits
from dtrain.core.graph.state_rules import describe_state, is_included
from dtrain.core.layers import LAYERS
from dtrain.core.layers.layer import Arity, Layer
from dtrain.core.layers.parts.fields import unknown_extensions, unread_messages
from dtrain.core.names import nearest
from dtrain.core.prototxt import Document
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

MAX_BLOBS_LISTED = 12


@dataclass(frozen=True)
class Graph:
    """The layers of one net in the order of forward, splits included."""

    name: str
    path: str
    state: caffe_pb2.NetState
    nodes: tuple[Node, ...]
    force_backward: bool = False

    def to_param(self) -> caffe_pb2.NetParameter:
        """Return the graph as a NetParameter, as Caffe saves it: the layers that are in, with splits."""
        param = caffe_pb2.NetParameter(name=self.name)
        param.layer.extend(node.param for node in self.nodes)
        return param


def build_graph(document: Document[caffe_pb2.NetParameter], state: caffe_pb2.NetState) -> Graph:
    """Return the graph of the (upgraded) NetParameter in `document` for `state`.

    Raises UserError with every mistake: unknown layer types, wrong numbers of bottoms or tops, bottoms that no
    earlier layer produces, tops that two layers produce, in-place use where a layer can't, rules that clash.
    """
    problems = Problems()
    left_out: dict[str, str] = {}
    nodes = _included_nodes(document, state, problems, left_out)
    if not nodes:
        problems.add(f"{document.path}: no layer is in for {describe_state(state)}; see its include rules")
    _check_connections(nodes, problems, left_out)
    problems.raise_if_any()
    net = document.message
    return Graph(net.name, document.path, state, tuple(insert_splits(nodes)), net.force_backward)


def _included_nodes(
    document: Document[caffe_pb2.NetParameter],
    state: caffe_pb2.NetState,
    problems: Problems,
    left_out: dict[str, str],
) -> list[Node]:
    """Return the layers that are in, and fill `left_out`: what to say of the tops of those that are not."""
    nodes: list[Node] = []
    for i, layer in enumerate(document.message.layer):
        where = document.where("layer", i)
        node = Node(_with_phase(layer, state.phase), len(nodes), where)
        is_in = True  # also with a mistake: later layers still find its tops, so that it is reported once
        with problems.collected(f"{node.title}: "):
            is_in = is_included(layer, state)
            if is_in:
                _check_layer(node)
                _warn_of_unread(node)
        if is_in:
            nodes.append(node)
        else:
            words = f"{node.title} has it, but is not in for {describe_state(state)}, see its rules"
            left_out.update((top, words) for top in layer.top)
    return nodes


def _with_phase(layer: caffe_pb2.LayerParameter, phase: int) -> caffe_pb2.LayerParameter:
    copy = caffe_pb2.LayerParameter()
    copy.CopyFrom(layer)
    if not copy.HasField("phase"):
        copy.phase = phase  # type: ignore[assignment]
    return copy


def _check_layer(node: Node) -> None:
    """Raise UserError unless the layer's type is known and its fields agree with the type's catalogue row."""
    param = node.param
    layer_class = LAYERS[param.type]
    problems = Problems()
    for name in unknown_extensions(param, layer_class):
        known = ", ".join(layer_class.extensions) or "none"
        problems.add(f"dtrain_param.{name} is nothing that {param.type} knows; known: {known}")
    _check_arity("bottoms", list(param.bottom), layer_class.bottoms, problems)
    if not (layer_class.is_loss and not param.top):  # a loss may leave its top out
        _check_arity("tops", list(param.top), layer_class.tops, problems)
    if layer_class.equal_bottoms_tops and len(param.bottom) != len(param.top):
        problems.add(f"needs as many tops as bottoms, got {len(param.bottom)} and {len(param.top)}")
    if param.propagate_down and len(param.propagate_down) != len(param.bottom):
        problems.add(
            f"propagate_down must be given once per bottom ({len(param.bottom)}), got {len(param.propagate_down)}"
        )
    num_tops = max(len(param.top), int(layer_class.is_loss))
    if param.loss_weight and len(param.loss_weight) != num_tops:
        problems.add(f"loss_weight must be given once per top ({num_tops}), got {len(param.loss_weight)}")
    problems.raise_if_any()


def _warn_of_unread(node: Node) -> None:
    for name in unread_messages(node.param, layer_class_of(node)):
        log.warning("%s: %s has no effect, %s does not read it", node.title, name, node.param.type)


def _check_arity(what: str, names: list[str], arity: Arity, problems: Problems) -> None:
    if len(names) < arity.least or (arity.most is not None and len(names) > arity.most):
        problems.add(f"needs {arity.describe()} {what}, got {len(names)}: {', '.join(names) or 'none'}")


def _check_connections(nodes: Sequence[Node], problems: Problems, left_out: Mapping[str, str]) -> None:
    producers: dict[str, str] = {}
    readers: dict[str, str] = {}  # of a blob as it is now: who has read it last, in words
    for node in nodes:
        for bottom in node.param.bottom:
            if bottom not in producers:
                problems.add(f"{node.title}: {_unknown_bottom(bottom, producers, left_out)}")
        for j, top in enumerate(node.param.top):
            in_place = j < len(node.param.bottom) and node.param.bottom[j] == top
            if top in producers and not in_place:
                problems.add(
                    f'{node.title}: top "{top}" is already produced by layer "{producers[top]}"; '
                    "give it another name (or name it as the bottom at the same place to work in place)"
                )
            elif top in readers:
                problems.add(
                    f'{node.title}: top "{top}" can\'t be in place, since layer {readers[top]} the '
                    "blob as it was before; give it another name"
                )
            producers[top] = node.name
        readers.update((bottom, f'"{node.name}" reads') for bottom in node.param.bottom)
        for top, weight in zip_longest(node.param.top, node.param.loss_weight):
            readers.pop(top, None)
            if weight:
                readers[top] = f'"{node.name}" takes a loss from'


def _unknown_bottom(bottom: str, producers: dict[str, str], left_out: Mapping[str, str]) -> str:
    blobs = list(producers)
    listed = ", ".join(blobs[-MAX_BLOBS_LISTED:]) or "none"
    if len(blobs) > MAX_BLOBS_LISTED:
        listed = "… " + listed
    if bottom in left_out:
        hint = f"{left_out[bottom]}; "
    elif hint := nearest(bottom, blobs):
        hint += " "
    return f'bottom "{bottom}" is produced by no earlier layer; {hint}blobs so far: {listed}'


def layer_class_of(node: Node) -> type[Layer]:
    """Return the class that carries out `node`."""
    return LAYERS[node.param.type]
