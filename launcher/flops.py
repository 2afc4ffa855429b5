"""Counted operations: how many each layer of a net needs forward and backward, from its shapes.

What a measured time is compared with, and where a prediction without a measurement comes from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import Layer
from dtrain.core.net.net import Net

_RECURRENT = ("RNN", "LSTM")


def count_multiply_adds(net: Net) -> list[int]:
    """Return the multiplications, each with its addition, of each layer forward; 0 without matrix products.

    Convolution, Deconvolution, InnerProduct, RNN and LSTM have one for each weight and each place where it is used.
    """
    return [
        _multiply_adds(layer, bottom, top)
        for layer, bottom, top in zip(net.layers, net.bottoms, net.tops, strict=True)
    ]


def count_flops(net: Net) -> tuple[list[float], list[float]]:
    """Return the operations of each layer forward and backward, an addition and a multiplication counted as two.

    Layers with matrix products count these (see count_multiply_adds), and as many again for each of the gradients
    in weights and in bottoms that is wanted. Any other layer counts one for each value that it reads or writes, in
    either pass.
    """
    forward, backward = [], []
    for layer, bottom, top, needs in zip(net.layers, net.bottoms, net.tops, net.needs, strict=True):
        flops, gradients = 2.0 * _multiply_adds(layer, bottom, top), any(needs.params) + any(needs.bottoms)
        if not _multiplies(layer):
            flops, gradients = float(_count_values(layer, bottom, top)), 1
        forward.append(flops)
        backward.append(flops * gradients if needs.layer else 0.0)
    return forward, backward


def _multiplies(layer: Layer) -> bool:
    return layer.type in (*_RECURRENT, "InnerProduct") or "onvolution" in layer.type


def _count_values(layer: Layer, bottom: Sequence[Blob], top: Sequence[Blob]) -> int:
    if layer.type == "Split":  # its tops are views
        return 0
    return sum(blob.count for blob in (*bottom, *top))


def _multiply_adds(layer: Layer, bottom: Sequence[Blob], top: Sequence[Blob]) -> int:
    if not _multiplies(layer):
        return 0
    weight = layer.blobs[0]
    if layer.type in _RECURRENT:
        num_steps, num_streams = bottom[0].shape[:2]
        return num_steps * num_streams * sum(blob.count for blob in layer.blobs if len(blob.shape) > 1)
    if layer.type == "InnerProduct":
        num_outputs = layer.param.inner_product_param.num_output
        return top[0].count // num_outputs * weight.count
    # A weight (K, C/group, kernel…) is used once for each place of the coarser side: of the top, or for a
    # transposed one of the bottom.
    coarse = bottom if "econvolution" in layer.type else top
    return sum(blob.count * math.prod(weight.shape[1:]) for blob in coarse)
