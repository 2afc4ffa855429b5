"""Multiply the gradient of a net's loss by a number on the GPU, before the gradients of all else follow from it.

For float16, whose loss scale (core/solver/loss_scale.py) the host need not know: this only launches.
"""

from __future__ import annotations

from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import Layer
from dtrain.core.layers.parts.loss import LossLayer
from dtrain.core.net.net import Net


def scale_gradients(net: Net, scale: Any) -> None:
    """Let each backward pass of `net` multiply the gradient of the loss by `scale`, as it is then.

    scale: float32 (1,) in the memory of the net's engine. Diffs of params and of blobs are then that many times as
    large. Those of the losses themselves stay their weights, unless a layer of another kind gives a loss.
    """
    memory, factor = net.context.engine.memory, scale.reshape(())
    tops: dict[int, list[tuple[Blob, float]]] = {}
    bottoms: dict[int, list[Blob]] = {}
    given: set[str] = set()  # blobs whose gradients come from layers behind, which have been multiplied there
    for i in reversed(range(len(net.layers))):
        layer, weights, needs = net.layers[i], net.loss_weights[i], net.needs[i]
        if not needs.layer:
            continue
        weighted = [
            (top, weight)
            for name, top, weight in zip(net.top_names[i], net.tops[i], weights, strict=True)
            if weight and name not in given
        ]
        if weighted and _is_loss_alone(layer, weights):
            wanted = zip(net.bottoms[i], needs.bottoms, strict=True)
            bottoms[i] = [bottom for bottom, is_wanted in wanted if is_wanted]
        else:
            tops[i] = weighted
        given.update(
            name for name, is_wanted in zip(net.bottom_names[i], needs.bottoms, strict=True) if is_wanted
        )

    def scale_tops(i: int) -> None:
        for top, weight in tops.get(i, ()):
            diff = top.write_diff(memory)
            diff.fill(weight)
            diff *= factor

    def scale_bottoms(i: int) -> None:
        for bottom in bottoms.get(i, ()):
            diff = bottom.update_diff(memory)
            diff *= factor

    net.callbacks.before_backward.append(scale_tops)
    net.callbacks.after_backward.append(scale_bottoms)


def _is_loss_alone(layer: Layer, weights: list[float]) -> bool:
    """Return whether all that a layer gives the gradients of are its bottoms, and by its loss alone.

    Then those are what is multiplied: loss layers read the weight on the host, and a user's Python may not look.
    """
    return isinstance(layer, LossLayer) or (layer.type == "Python" and all(weights) and not layer.blobs)
