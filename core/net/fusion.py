"""Which layers of a net run as one, and running them so.

    Convolution → [BatchNorm → Scale] → ReLU

Two layers are one where the second alone reads what the first has computed, and the first knows how to do the work of
both (Layer.fused_with). Forward happens when the first one's turn comes, backward when the second one's does, so that
all gradients of params are there no later than without. What lies between the two is not computed: nets that a script
runs and looks into are not fused, nor those of which debug_info shows all values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.core.layers.layer import FusedLayers, Layer


@dataclass(frozen=True)
class Pair:
    """Layers `first` and `first` + 1 as one."""

    first: int
    layers: FusedLayers


def find_pairs(
    layers: Sequence[Layer],
    bottom_names: Sequence[Sequence[str]],
    top_names: Sequence[Sequence[str]],
    loss_weights: Sequence[Sequence[float]],
) -> dict[int, Pair]:
    """Return the pairs, each under the indices of its two layers; loss_weights: of each layer's tops."""
    num_readers = Counter(name for names in bottom_names for name in set(names))
    pairs: dict[int, Pair] = {}
    for i in range(len(layers) - 1):
        tops, behind = top_names[i], bottom_names[i + 1]
        if i in pairs or len(tops) != 1 or not behind or behind[0] != tops[0] or any(loss_weights[i]):
            continue
        is_hidden = list(top_names[i + 1]) == list(tops) or num_readers[tops[0]] == 1
        fused = layers[i].fused_with(layers[i + 1], len(behind)) if is_hidden else None
        if fused is not None:
            pairs[i] = pairs[i + 1] = Pair(i, fused)
    return pairs
