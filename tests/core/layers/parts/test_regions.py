"""Regions of interest: rounding, edges, and which rows are no regions."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.layers.parts.regions import round_half_away, to_pixels
from tests.core.layers.layer_harness import make_rig

ROI_POOLING = 'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }'


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (0.5, 1), (1.5, 2), (2.5, 3), (-0.5, -1), (-2.5, -3), (2.4, 2), (-2.6, -3), (1e30, 1e30)],
)
def test_round_half_away_of_a_number_is_c_s_round(value: float, expected: float) -> None:
    assert round_half_away(np.array([value]))[0] == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_half_away_just_below_a_half_is_0(dtype: type[np.floating]) -> None:
    below = np.nextafter(dtype(0.5), dtype(0))  # adding 0.5 would give 1
    assert round_half_away(np.array([below]))[0] == 0
    assert round_half_away(np.array([below])).dtype == dtype


def test_to_pixels_clips_to_the_map() -> None:
    edges = to_pixels(np.array([-3.0, 0.0, 4.0, 9.0, 1e30]), 5)
    np.testing.assert_array_equal(edges, [0, 0, 4, 5, 5])
    assert edges.dtype == np.intp


@pytest.mark.parametrize("image", [-1, 2, np.inf, np.nan])
def test_read_regions_of_no_image_of_the_batch_is_an_error(image: float) -> None:
    rig = make_rig(ROI_POOLING, [np.zeros((2, 1, 3, 3)), [[1, 0, 0, 1, 1], [image, 0, 0, 1, 1]]])
    with pytest.raises(UserError, match=r"must have rows of an image, 0 to 1, .* in row 1$"):
        rig.forward()


@pytest.mark.parametrize("corner", [1e9, -1e9, np.nan, np.inf])
def test_read_regions_with_a_corner_that_is_no_place_is_an_error(corner: float) -> None:
    rig = make_rig(ROI_POOLING, [np.zeros((2, 1, 3, 3)), [[0, 0, corner, 1, 1]]])
    with pytest.raises(UserError, match=r"and four corners within 1e\+09, got .* in row 0$"):
        rig.forward()


def test_region_layer_overwrites_the_regions_gradient_by_0_where_it_is_asked_for() -> None:
    rig = make_rig(ROI_POOLING, [np.zeros((1, 1, 3, 3)), [[0, 0, 0, 1, 1]]])
    rig.forward()
    for wanted, left in ((False, 7), (True, 0)):
        rig.bottom[1].diff[...] = 7
        rig.backward([np.ones((1, 1, 1, 1))], [False, wanted])
        assert np.all(rig.bottom[1].diff == left)
