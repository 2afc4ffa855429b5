"""Tests of core/written_params.py, through the layers that have such params."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import make_rig

LAYER = (
    'type: "InnerProduct" inner_product_param { num_output: 2 bias_term: false weight_filler { value: 7 } } '
)


@pytest.mark.parametrize(
    "blob",
    [
        "shape { dim: 2 dim: 3 } data: [1, 2, 3, 4, 5, 6]",
        "num: 1 channels: 1 height: 2 width: 3 data: [1, 2, 3, 4, 5, 6]",
        "shape { dim: 2 dim: 3 } double_data: [1, 2, 3, 4, 5, 6]",
    ],
)
def test_param_written_out_in_the_prototxt_has_those_values(blob: str) -> None:
    rig = make_rig(LAYER + f"blobs {{ {blob} }}", [np.array([[1.0, 10, 100]])])
    assert rig.forward()[0].tolist() == [[321, 654]]


def test_param_that_is_not_written_out_is_filled() -> None:
    assert make_rig(LAYER, [np.ones((1, 3))]).forward()[0].tolist() == [[21, 21]]


def test_parameter_layer_written_out_shows_the_values() -> None:
    text = 'type: "Parameter" parameter_param { shape { dim: 2 } } blobs { shape { dim: 2 } data: [5, 6] }'
    assert make_rig(text, []).forward()[0].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("blob", "given"),
    [
        ("shape { dim: 3 dim: 2 } data: [1, 2, 3, 4, 5, 6]", "(3, 2) with 6 values"),
        ("shape { dim: 1 dim: 2 dim: 3 } data: [1, 2, 3, 4, 5, 6]", "(1, 2, 3) with 6 values"),
        ("num: 2 channels: 1 height: 2 width: 3 data: [1, 2, 3, 4, 5, 6]", "(2, 1, 2, 3) with 6 values"),
        ("shape { dim: 2 dim: 3 } data: [1, 2]", "(2, 3) with 2 values"),
    ],
)
def test_param_written_out_in_another_shape_is_refused(blob: str, given: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(LAYER + f"blobs {{ {blob} }}", [np.ones((1, 3))])
    assert str(caught.value) == f"blobs: number 0 must be of the param's shape (2, 3), got {given}"
