"""What needs a gradient: which layers run backward, and into which of their bottoms.

Follows caffe's net.cpp (Net::Init): a gradient is needed below a loss and above something learned.
`propagate_down` forces or cuts it for a bottom; `force_backward` asks for it everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerFlow:
    """What the analysis looks at in one layer.

    propagate_down: the prototxt's field, empty or one per bottom. params_learn: lr_mult ≠ 0 of each param.
    loss_weights: one per top. can_force: whether force_backward may ask for a bottom's gradient.
    """

    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    propagate_down: tuple[bool, ...] = ()
    params_learn: tuple[bool, ...] = ()
    loss_weights: tuple[float, ...] = ()
    can_force: tuple[bool, ...] = ()


@dataclass
class Needs:
    """What one layer does in backward: whether it runs, into which bottoms, for which params."""

    layer: bool
    bottoms: list[bool]
    params: list[bool]


def find_needs(layers: Sequence[LayerFlow], force_backward: bool = False) -> list[Needs]:
    """Return the needs of each layer, in the order of `layers` (which are in the order of forward)."""
    needs = _needs_from_params(layers)
    _cut_what_reaches_no_loss(layers, needs)
    if force_backward:
        for layer, need in zip(layers, needs, strict=True):
            need.layer = True
            need.bottoms = [old or can for old, can in zip(need.bottoms, layer.can_force, strict=True)]
            need.params = [True] * len(need.params)
    return needs


def _needs_from_params(layers: Sequence[LayerFlow]) -> list[Needs]:
    blobs: set[str] = set()  # blobs below which something learns
    needs = []
    for layer in layers:
        bottoms = list(layer.propagate_down or [blob in blobs for blob in layer.bottoms])
        runs = any(blob in blobs for blob in layer.bottoms) or any(layer.params_learn)
        if runs:
            blobs.update(layer.tops)
        needs.append(Needs(runs, bottoms, list(layer.params_learn)))
    return needs


def _cut_what_reaches_no_loss(layers: Sequence[LayerFlow], needs: list[Needs]) -> None:
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for layer, need in zip(reversed(layers), reversed(needs), strict=True):
        contributes = any(layer.loss_weights) or not under_loss.isdisjoint(layer.tops)
        if need.layer and skipped.issuperset(layer.tops):
            need.layer = False
            need.bottoms = [False] * len(need.bottoms)
        if contributes:
            under_loss.update(layer.bottoms)
        else:
            need.layer = False
            need.bottoms = [False] * len(need.bottoms)
        skipped.update(blob for blob, needed in zip(layer.bottoms, need.bottoms, strict=True) if not needed)
