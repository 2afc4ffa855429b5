"""Rows by number. Which indices are refused is in test_index_layers.py."""

from __future__ import annotations

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.layers.parts.rows import read_indices
from tests.core.layers.layer_harness import make_layer


def test_read_indices_are_whole_numbers_in_row_major_order() -> None:
    blob = Blob((2, 2))
    blob.data[...] = [[3, 0], [1, 2]]
    indices = read_indices(make_layer('type: "Embed"', 1), blob, 0, 4, "")
    assert (indices.dtype, indices.tolist()) == (np.int64, [3, 0, 1, 2])
