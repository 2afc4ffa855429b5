"""Which layers' tops are written over by layers behind them that work in place.

A layer whose gradient needs its own top must then keep a copy, or the gradient is wrong (in Caffe it is, silently);
one whose top is a view of other memory must not share that.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.graph.node import Node


def find_overwriting(nodes: Sequence[Node]) -> list[tuple[str, ...]]:
    """Return for each node the types of the later layers that work in place on its first top, in their order.

    All tops of a Split are one memory and count alike.
    """
    owners: dict[str, list[int]] = {}  # blob → the nodes that have written it so far
    found: list[list[str]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        param = node.param
        for j, top in enumerate(param.top):
            in_place = j < len(param.bottom) and param.bottom[j] == top
            writers = owners.setdefault(top, []) if in_place else []
            for writer in writers:
                found[writer].append(param.type)
            owners[top] = [*writers, i] if j == 0 or param.type == "Split" else writers
    return [tuple(types) for types in found]
