"""What a net runs, in order, as its engine hears it before it does: layers, and those that run as one.

net ──> steps ──> Engine.plan
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Step
from dtrain.core.layers.layer import Layer
from dtrain.core.net.fusion import Group


def find_steps(
    layers: Sequence[Layer],
    bottoms: Sequence[Sequence[Blob]],
    tops: Sequence[Sequence[Blob]],
    groups: Mapping[int, Group],
) -> list[Step]:
    """Return a step for each layer that runs alone, and for each group of those that run as one.

    bottoms, tops: of each layer. groups: of the net, under the indices of their layers.
    """
    steps = []
    for i, layer in enumerate(layers):
        group = groups.get(i)
        if group is None:
            steps.append(Step(layer, bottoms[i], tops[i]))
        elif i == group.first:
            outside = [bottoms[k][place] for k, place in group.bottoms]
            steps.append(Step(group.layers, outside, tops[group.last]))
    return steps
