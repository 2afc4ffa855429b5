"""Layers with weight and bias: which params there are, and which gradients are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.layers.parts.weighted import WeightedLayer
from tests.core.layers.layer_harness import Rig, make_rig


def make(fields: str = "") -> tuple[Rig, WeightedLayer]:
    rig = make_rig(
        f'type: "InnerProduct" inner_product_param {{ num_output: 2 {fields} }}', [np.ones((3, 4))]
    )
    assert isinstance(rig.layer, WeightedLayer)
    return rig, rig.layer


def test_weighted_layer_without_bias_has_one_param() -> None:
    assert make("bias_term: false")[1].bias is None
    rig, layer = make()
    assert layer.bias is rig.layer.blobs[1]


def test_weighted_layer_fills_each_param_by_its_own_filler() -> None:
    _, layer = make("weight_filler { value: 3 } bias_filler { value: 4 }")
    assert [set(blob.data.flat) for blob in layer.blobs] == [{3.0}, {4.0}]


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_weighted_layer_computes_only_the_wanted_param_gradients(wanted: tuple[bool, bool]) -> None:
    rig, layer = make()
    layer.param_propagate_down = list(wanted)
    rig.forward()
    rig.backward([np.ones((3, 2))], [False])
    assert tuple(bool(np.any(blob.diff)) for blob in layer.blobs) == wanted
    assert not np.any(rig.bottom[0].diff)
