"""What the layers of a net carry from one batch to the next: out of it for a snapshot, and into it to resume.

Each rank has its own. Which layers carry anything is the same on all ranks, since it is a matter of the net.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dtrain.core.errors import Problems
from dtrain.core.net.net import Net
from dtrain.core.snapshots import LayerState

log = logging.getLogger(__name__)


def take_states(net: Net) -> list[LayerState]:
    """Return the states of the layers that carry something, in the order of the layers.

    Raises UserError, in the layer's name, where a Python layer can't give its own.
    """
    states = []
    for i, layer in enumerate(net.layers):
        with _in_name_of(net, i):
            state = layer.get_state()
        if state is not None:
            states.append((layer.name, state))
    return states


def give_states(net: Net, states: Sequence[LayerState]) -> list[str]:
    """Let the layers that carry something go on from `states`, by their names; those without one begin anew.

    Of several layers of one name each has its own. Returns the titles of the layers that begin anew; logs which
    states no layer has taken. Raises UserError, in the layer's name, for a state that doesn't fit; the layers
    before it have theirs then.
    """
    left: dict[str, list[bytes]] = {}
    for name, state in states:
        left.setdefault(name, []).append(state)
    without = []
    for i, layer in enumerate(net.layers):
        with _in_name_of(net, i):
            if layer.get_state() is None:
                continue
            if left.get(layer.name):
                layer.set_state(left[layer.name].pop(0))
            else:
                layer.begin_anew()
                without.append(net.graph.nodes[i].title)
    for name in (name for name, remaining in left.items() if remaining):
        log.warning('The state of layer "%s" is left: no layer of that name carries one here', name)
    return without


@contextmanager
def states_put_back(net: Net) -> Iterator[None]:
    """Put back, after the with block, what forward passes in it have moved for the passes to come: what layers
    carry, and running statistics.
    """
    states = take_states(net)
    statistics = [param.blob for param in net.learnable_params if param.is_statistic]
    values = [blob.data.copy() for blob in statistics]
    yield
    give_states(net, states)
    for blob, kept in zip(statistics, values, strict=True):
        blob.data[...] = kept


@contextmanager
def _in_name_of(net: Net, index: int) -> Iterator[None]:
    """Put the place and name of a layer in front of what it says."""
    problems = Problems()
    with problems.collected(f"{net.graph.nodes[index].title}: "):
        yield
    problems.raise_if_any()
