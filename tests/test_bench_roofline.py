"""The benchmark's roof: each pass takes as long as its operations or as its bytes, and the update its bytes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.roofline import describe, layer_seconds, net_seconds

RATES = {"convolution_flops_per_s": 100.0, "product_flops_per_s": 50.0, "bytes_per_s": 10.0}
CONVOLUTION: dict[str, Any] = {"type": "Convolution + ReLU", "flops": [300.0, 600.0], "bytes": [40, 20]}
PRODUCT: dict[str, Any] = {"type": "InnerProduct", "flops": [100.0, 0.0], "bytes": [5, 0]}
POOLING: dict[str, Any] = {"type": "Pooling", "flops": [0.0, 0.0], "bytes": [30, 10]}


@pytest.mark.parametrize(
    ("layer", "seconds"),
    [
        (CONVOLUTION, 4 + 6),  # forward is as long as its bytes, backward as its operations
        (PRODUCT, 2),
        (POOLING, 3 + 1),
    ],
)
def test_layer_seconds_is_the_longer_of_operations_and_bytes_of_each_pass(
    layer: dict[str, Any], seconds: float
) -> None:
    assert layer_seconds(layer, RATES) == seconds


def test_net_seconds_adds_the_update_of_the_params() -> None:
    assert net_seconds([CONVOLUTION, PRODUCT, POOLING], 3, RATES) == 10 + 2 + 4 + 3 * 20 / 10


def test_describe_says_which_share_of_the_roof_was_reached() -> None:
    text = describe([CONVOLUTION, PRODUCT, POOLING], 3, RATES, 44.0)
    assert "all layers at these rates 22000.0 ms: 50% reached" in text
