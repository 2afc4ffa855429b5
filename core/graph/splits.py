"""Split layers: a blob that several layers consume is copied to each by a Split layer of its own.

Forward shares the data; backward sums the diffs. Names are Caffe's (insert_splits.cpp): the layer is
`<blob>_<layer>_<top index>_split`, its tops `<that>_<k>`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from dtrain.core.graph.node import Node
from dtrain.proto import caffe_pb2

Source = tuple[int, int]  # (index of the producing node, index of its top)


@dataclass
class _Uses:
    """Who consumes which top, in the order of the net."""

    source_of: dict[tuple[int, int], Source] = field(default_factory=dict)  # (node, bottom index) → source
    num_consumers: defaultdict[Source, int] = field(default_factory=lambda: defaultdict(int))
    loss_weights: dict[Source, float] = field(default_factory=dict)


def insert_splits(nodes: list[Node]) -> list[Node]:
    """Return `nodes` with Split nodes after every node that has a top with several consumers.

    A non-zero loss_weight counts as a consumer and moves to output 0 of the split. A layer that works in place
    makes its top a new source. Bottoms that nobody produces are left for the graph to report.
    """
    uses = _find_uses(nodes)
    handed_out: defaultdict[Source, int] = defaultdict(int)
    result = []
    for i, node in enumerate(nodes):
        param = caffe_pb2.LayerParameter()
        param.CopyFrom(node.param)
        for j, bottom in enumerate(param.bottom):
            source = uses.source_of.get((i, j))
            if source is not None and uses.num_consumers[source] > 1:
                producer = nodes[source[0]].param.name
                param.bottom[j] = _output_name(bottom, producer, source[1], handed_out[source])
                handed_out[source] += 1
        result.append(replace(node, param=param))
        for j, top in enumerate(param.top):
            if uses.num_consumers[i, j] > 1:
                result.append(_split_node(node, param, top, j, uses))
                handed_out[i, j] += (i, j) in uses.loss_weights
    return result


def _find_uses(nodes: list[Node]) -> _Uses:
    uses = _Uses()
    newest: dict[str, Source] = {}
    for i, node in enumerate(nodes):
        for j, bottom in enumerate(node.param.bottom):
            if bottom in newest:
                uses.source_of[i, j] = newest[bottom]
                uses.num_consumers[newest[bottom]] += 1
        for j, top in enumerate(node.param.top):
            newest[top] = (i, j)
            weight = node.param.loss_weight[j] if j < len(node.param.loss_weight) else 0.0
            if weight:
                uses.loss_weights[i, j] = weight
                uses.num_consumers[i, j] += 1
    return uses


def _split_node(
    producer: Node, param: caffe_pb2.LayerParameter, blob: str, top_index: int, uses: _Uses
) -> Node:
    source = (producer.index, top_index)
    count = uses.num_consumers[source]
    split = caffe_pb2.LayerParameter(
        name=_split_name(blob, param.name, top_index), type="Split", bottom=[blob]
    )
    split.top.extend(_output_name(blob, param.name, top_index, k) for k in range(count))
    if source in uses.loss_weights:
        split.loss_weight.extend([uses.loss_weights[source]] + [0.0] * (count - 1))
        param.loss_weight[top_index] = 0.0
    return Node(split, producer.index, producer.where, inserted=True)


def _split_name(blob: str, layer: str, top_index: int) -> str:
    return f"{blob}_{layer}_{top_index}_split"


def _output_name(blob: str, layer: str, top_index: int, k: int) -> str:
    return f"{_split_name(blob, layer, top_index)}_{k}"
