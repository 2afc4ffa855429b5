"""Counted operations: how many each layer of a net needs forward and backward, from its shapes.

A prediction without a measurement divides them by what the hardware does in a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import Layer
from dtrain.core.net.net import Net

_RECURRENT = ("RNN", "LSTM")


def count_flops(net: Net) -> tuple[list[float], list[float]]:
    """Return the operations of each layer forward and backward, an addition and a multiplication counted as two.

    Convolution, Deconvolution, InnerProduct, RNN and LSTM count their products of matrices: 2 for each weight and
    each place at which it is used, forward, and as many again for each of the gradients in weights and in bottoms
    that is wanted. Any other layer counts one for each value that it reads or writes, in either pass.
    """
    forward = [
        float(_forward_flops(layer, bottom, top))
        for layer, bottom, top in zip(net.layers, net.bottoms, net.tops, strict=True)
    ]
    backward = []
    for layer, flops, needs in zip(net.layers, forward, net.needs, strict=True):
        gradients = any(needs.params) + any(needs.bottoms) if _multiplies(layer) else 1
        backward.append(flops * gradients if needs.layer else 0.0)
    return forward, backward


def _multiplies(layer: Layer) -> bool:
    return layer.type in (*_RECURRENT, "InnerProduct") or "onvolution" in layer.type


def _forward_flops(layer: Layer, bottom: Sequence[Blob], top: Sequence[Blob]) -> int:
    if layer.type == "Split":  # its tops are views
        return 0
    if not _multiplies(layer):
        return sum(blob.count for blob in (*bottom, *top))
    weight = layer.blobs[0]
    if layer.type in _RECURRENT:
        num_steps, num_streams = bottom[0].shape[:2]
        return 2 * num_steps * num_streams * sum(blob.count for blob in layer.blobs if len(blob.shape) > 1)
    if layer.type == "InnerProduct":
        num_outputs = layer.param.inner_product_param.num_output
        return 2 * top[0].count // num_outputs * weight.count
    # A weight (K, C/group, kernel…) is used once for each place of the coarser side: of the top, or for a
    # transposed one of the bottom.
    coarse = bottom if "econvolution" in layer.type else top
    return sum(2 * blob.count * math.prod(weight.shape[1:]) for blob in coarse)
