"""Views: tops that are their bottom under another shape."""

from __future__ import annotations

import numpy as np

from dtrain.core.blob import Blob
from tests.core.layers.layer_harness import make_rig


def test_view_of_a_bottom_that_grew_shares_the_new_memory() -> None:
    rig = make_rig('type: "Flatten"', [np.zeros((1, 2, 3))])
    rig.feed([np.full((4, 2, 3), 7.0)])
    np.testing.assert_array_equal(rig.forward()[0], np.full((4, 6), 7.0))
    rig.backward([np.full((4, 6), 5.0)])
    np.testing.assert_array_equal(rig.bottom[0].diff, np.full((4, 2, 3), 5.0))


def test_view_of_a_bottom_whose_memory_was_exchanged_shows_the_new_values() -> None:
    rig = make_rig('type: "Flatten"', [np.zeros((1, 2, 3))])
    other = Blob((6,), np.float64)
    other.data[...] = 7
    rig.bottom[0].share_data(other)
    np.testing.assert_array_equal(rig.forward()[0], np.full((1, 6), 7.0))
