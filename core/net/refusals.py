"""Why layers can't give the gradients that backward would ask them for; net.py says when that is an error."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.graph.gradient_flow import Needs
from dtrain.core.layers.layer import InPlace, Layer


def find_refusals(
    layers: Sequence[Layer], needs: Sequence[Needs], bottom_names: Sequence[Sequence[str]]
) -> dict[int, list[str]]:
    """Return in sentences what each of `layers` can't do of what `needs` asks of it, by its index if there is any."""
    found = {
        i: _reasons_against(layer, need, bottoms)
        for i, (layer, need, bottoms) in enumerate(zip(layers, needs, bottom_names, strict=True))
        if need.layer
    }
    return {i: reasons for i, reasons in found.items() if reasons}


def _reasons_against(layer: Layer, need: Needs, bottoms: Sequence[str]) -> list[str]:
    """Return in sentences what `need` asks of a layer that it can't do."""
    reasons = []
    if any(need.bottoms) and not layer.has_backward:
        reasons.append(f"{layer.type} has no gradient, but what it reads is learned through it")
    for j in layer.no_gradient_bottoms:
        if j < len(bottoms) and need.bottoms[j]:
            reasons.append(
                f'bottom "{bottoms[j]}" can\'t get a gradient from {layer.type}, but comes from layers that learn; '
                "set propagate_down: false for it"
            )
    is_in_place = bool(set(bottoms) & set(layer.param.top))
    if layer.in_place is InPlace.FORWARD_ONLY and is_in_place and any(need.bottoms):
        reasons.append(f"{layer.type} can't work in place where a gradient flows back")
    return reasons
