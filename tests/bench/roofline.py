"""The roof over a net's time: what its multiplications and its bytes take at the rates that the machine was seen at.

    counted work of each layer (programs/nets.py) × rates (programs/machine_rates.py) ──> seconds

Each pass of each layer, or of layers that run as one, takes as long as its operations or as its bytes, whichever is
longer. It is no bound where operands are still in the cache or a kernel's size suits oneDNN better than 3x3 does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UPDATE_BYTES = 20  # a learned value: it, its gradient and its history are read, it and its history written


def layer_seconds(layer: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    """Return the least that both passes of a layer take.

    layer: its type, and for forward and backward the `flops` of products (0 if it has none) and `bytes`.
    """
    kind = "convolution" if "onvolution" in layer["type"] else "product"
    return sum(
        max(flops / rates[f"{kind}_flops_per_s"], num_bytes / rates["bytes_per_s"])
        for flops, num_bytes in zip(layer["flops"], layer["bytes"], strict=True)
    )


def net_seconds(layers: Sequence[Mapping[str, Any]], num_params: int, rates: Mapping[str, float]) -> float:
    """Return the least that an iteration takes: both passes of all layers, and the update of the params."""
    update = UPDATE_BYTES * num_params / rates["bytes_per_s"]
    return sum(layer_seconds(layer, rates) for layer in layers) + update


def describe(
    layers: Sequence[Mapping[str, Any]], num_params: int, rates: Mapping[str, float], seconds: float
) -> str:
    """Return in words what an iteration of `seconds` reached of the machine's rates."""
    flops = sum(sum(layer["flops"]) for layer in layers)
    rate, least = flops / seconds, net_seconds(layers, num_params, rates)
    return (
        f"{flops / 1e9:.2f} GFLOP, {rate / 1e9:.1f} GFLOP/s, {rate / rates['convolution_flops_per_s']:.0%} of a "
        f"convolution's {rates['convolution_flops_per_s'] / 1e9:.0f} (3x3; products of matrices "
        f"{rates['product_flops_per_s'] / 1e9:.0f}, copies {rates['bytes_per_s'] / 1e9:.0f} GB/s); "
        f"all layers at these rates {1000 * least:.1f} ms: {least / seconds:.0%} reached"
    )
