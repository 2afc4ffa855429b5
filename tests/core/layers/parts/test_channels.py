from __future__ import annotations

import pytest

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.parts.channels import check_channels, num_channels
from tests.core.layers.layer_harness import make_layer

LAYER = make_layer('type: "PReLU"', 1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5), (0, 3)])
def test_num_channels_is_the_length_of_axis_1(shape: tuple[int, ...]) -> None:
    assert num_channels(LAYER, Blob(shape)) == 3
    check_channels(LAYER, Blob(shape), 3)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_num_channels_of_fewer_axes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as caught:
        num_channels(LAYER, Blob(shape))
    assert str(caught.value) == f'bottom 0 "x0" must have at least 2 axes (N, C, …), got shape {shape}'


def test_check_channels_that_have_changed_names_both_numbers() -> None:
    with pytest.raises(UserError) as caught:
        check_channels(LAYER, Blob((2, 3)), 4)
    assert str(caught.value) == "the bottom must keep 4 channels at axis 1, got shape (2, 3)"
