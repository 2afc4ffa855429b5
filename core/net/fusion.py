"""Which layers of a net run as one, and running them so.

    Convolution → [BatchNorm → Scale → ReLU] → Pooling

A layer joins those before it where it alone reads what they have computed, and what does their work knows how to do
its work too (Layer.fused_with, FusedLayers.fused_with). Forward happens when the first one's turn comes, backward
when the last one's does, so that all gradients of params are there no later than without. What lies between is not
computed: nets that a script runs and looks into are not fused, nor those of which debug_info shows all values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.core.graph.gradient_flow import Needs
from dtrain.core.layers.layer import FusedLayers, Layer


@dataclass(frozen=True)
class Group:
    """Layers `first` to `last`, inclusive, as one.

    bottoms: those that come from outside, as (layer, which of its bottoms), in the order in which `layers` has them.
    """

    first: int
    last: int
    layers: FusedLayers
    bottoms: tuple[tuple[int, int], ...]


def find_groups(
    layers: Sequence[Layer],
    bottom_names: Sequence[Sequence[str]],
    top_names: Sequence[Sequence[str]],
    loss_weights: Sequence[Sequence[float]],
    needs: Sequence[Needs],
) -> dict[int, Group]:
    """Return the groups, each under the indices of all its layers; loss_weights: of each layer's tops."""
    last_readers = {name: i for i, names in enumerate(bottom_names) for name in names}
    groups: dict[int, Group] = {}
    first = 0
    while first < len(layers):
        last = first
        so_far: Layer | FusedLayers = layers[first]
        fused: FusedLayers | None = None
        bottoms = [(first, place) for place in range(len(bottom_names[first]))]
        while last + 1 < len(layers) and not any(loss_weights[last]) and _flow_together(needs, last):
            place = _place_behind(last, bottom_names, top_names, last_readers)
            names = bottom_names[last + 1]
            found = so_far.fused_with(layers[last + 1], len(names), place) if place is not None else None
            if found is None:
                break
            so_far = fused = found
            last += 1
            bottoms += [(last, other) for other in range(len(names)) if other != place]
        if fused is not None:
            groups.update(dict.fromkeys(range(first, last + 1), Group(first, last, fused, tuple(bottoms))))
        first = last + 1
    return groups


def _place_behind(
    i: int,
    bottom_names: Sequence[Sequence[str]],
    top_names: Sequence[Sequence[str]],
    last_readers: dict[str, int],
) -> int | None:
    """Return which bottom of layer i + 1 is the only top of layer i, if nobody else reads that."""
    if len(top_names[i]) != 1:
        return None
    name, behind = top_names[i][0], bottom_names[i + 1]
    is_hidden = list(top_names[i + 1]) == [name] or last_readers.get(name) == i + 1
    return list(behind).index(name) if is_hidden and list(behind).count(name) == 1 else None


def _flow_together(needs: Sequence[Needs], i: int) -> bool:
    """Return whether layer i gives the gradients that it would give alone where backward of i + 1 runs it too: no
    propagate_down between them says that what i learns is left alone.
    """
    return needs[i].layer == needs[i + 1].layer or not any(needs[i].params)
