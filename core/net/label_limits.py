"""How many classes made-up labels have: what the layers that read them look for.

Used once, between a net's building and its first batch, if its records are made up (data/synthetic_reader.py).
"""

from __future__ import annotations

import logging

from dtrain.core.layers.layer import Layer
from dtrain.core.layers.parts.class_labels import ClassLabels
from dtrain.core.net.net import Net

log = logging.getLogger(__name__)

_PASSING_ON = ("Split", "Flatten", "Reshape", "Slice", "Concat", "Permute", "Crop", "Tile")


def limit_labels(net: Net) -> None:
    """Let each layer that makes up records make up labels that their readers know; where any would do, 0 or 1."""
    limits = find_limits(net)
    for layer in net.reading_layers:
        for j, name in enumerate(layer.param.top):
            if layer.made_up is not None and name in limits:
                layer.made_up.limit_values(j, limits[name])
                log.info('layer "%s": made-up "%s" is 0 to %d', layer.name, name, limits[name] - 1)


def find_limits(net: Net) -> dict[str, int]:
    """Return for blobs of labels or indices by name how many values are valid for all layers that they go to.

    Losses and scores of classes know as many as they have scores, Embed as many as it has rows. Blobs are followed
    through layers that pass values on as they are.
    """
    limits: dict[str, int] = {}
    for layer, bottoms, tops in zip(
        reversed(net.layers), reversed(net.bottom_names), reversed(net.top_names), strict=True
    ):
        found = [(bottoms[j], num_values) for j, num_values in _own_limits(layer)]
        if layer.type in _PASSING_ON:
            found += [(name, limits[top]) for name in bottoms for top in tops if top in limits]
        for name, num_values in found:
            limits[name] = min(num_values, limits.get(name, num_values))
    return limits


def _own_limits(layer: Layer) -> list[tuple[int, int]]:
    """Return (which bottom, number of values) of what the layer itself asks."""
    labels = getattr(layer, "labels", None)
    if isinstance(labels, ClassLabels):
        return [(1, labels.num_classes)]
    return [(0, layer.param.embed_param.input_dim)] if layer.type == "Embed" else []
