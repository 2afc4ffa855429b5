"""What each layer of a net can learn and pass on, for core/graph/gradient_flow.py, which plans backward."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.graph.gradient_flow import LayerFlow
from dtrain.core.layers.layer import Layer
from dtrain.core.net.params import ParamTable


def find_flows(
    layers: Sequence[Layer],
    bottom_names: Sequence[Sequence[str]],
    top_names: Sequence[Sequence[str]],
    loss_weights: Sequence[Sequence[float]],
    params: ParamTable,
) -> list[LayerFlow]:
    """Return what is known of each layer, in their order; all arguments are by layer."""
    flows = []
    for i, layer in enumerate(layers):
        learns = tuple(bool(params.of(i, k).learning_rate_multiplier) for k in range(len(layer.blobs)))
        bottoms = tuple(bottom_names[i])
        can_force = tuple(j not in layer.no_gradient_bottoms for j in range(len(bottoms)))
        flows.append(
            LayerFlow(
                bottoms,
                tuple(top_names[i]),
                tuple(layer.param.propagate_down),
                learns,
                tuple(loss_weights[i]),
                can_force,
            )
        )
    return flows


def loss_weights_of(layer: Layer, num_tops: int) -> list[float]:
    """Return by what each top of `layer` counts in the loss: as its prototxt says, else the first of a loss layer."""
    given = list(layer.param.loss_weight)
    if given:
        return given + [0.0] * (num_tops - len(given))
    return [1.0 if layer.is_loss and j == 0 else 0.0 for j in range(num_tops)]
