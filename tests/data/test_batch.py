"""Tests of data/batch.py."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.batch import Batch, lay_out


def test_batch_has_an_array_for_each_shape() -> None:
    batch = Batch(5, [(3, 2, 1), ()])
    arrays = (batch.data, batch.labels, batch.epochs, batch.indices)
    assert [array.shape for array in arrays] == [(5, 3, 2, 1), (5,), (5,), (5,)]
    assert [array.dtype for array in arrays] == ["float32", "float32", "int64", "int64"]


def test_fit_to_the_same_shape_keeps_the_array() -> None:
    batch = Batch(2, [(3, 4, 4)])
    before = batch.data
    assert batch.fit(0, (3, 4, 4)) is before


def test_fit_to_another_shape_makes_an_array_for_it() -> None:
    batch = Batch(2, [(3, 4, 4)])
    assert batch.fit(0, (1, 9)).shape == (2, 1, 9)
    assert batch.data.shape == (2, 1, 9)


@pytest.mark.parametrize(("channels_last", "in_memory"), [(False, (2, 3, 4, 5)), (True, (2, 4, 5, 3))])
def test_fit_stored_makes_room_for_bytes_in_either_order(
    channels_last: bool, in_memory: tuple[int, ...]
) -> None:
    batch = Batch(2, [(0,), ()])
    windows = np.array([[1, 2, 0], [0, 1, 1]], np.int32)
    images = batch.fit_stored((3, 4, 5), windows, channels_last)
    assert (images.shape, images.dtype) == ((2, 3, 4, 5), np.uint8)
    assert (batch.data.shape, batch.channels_last) == (in_memory, channels_last)
    assert batch.data.flags.c_contiguous
    images[1, 2, 3, 4] = 9
    assert batch.data[-1, -1, -1, -1] == 9
    assert batch.windows is not None
    assert batch.windows is not windows
    assert batch.windows.tolist() == windows.tolist()
    before = batch.data, batch.windows
    batch.fit_stored((3, 4, 5), windows, channels_last)
    assert batch.data is before[0]
    assert batch.windows is before[1]


def test_fit_after_fit_stored_is_ready_for_the_net() -> None:
    batch = Batch(2, [(3, 4, 5)])
    batch.fit_stored((3, 4, 5), np.zeros((2, 3), np.int32), channels_last=True)
    assert batch.fit(0, (4, 5, 3)).dtype == np.float32
    assert (batch.windows, batch.channels_last) == (None, False)


def test_batch_has_all_that_others_read_in_a_block_from_the_allocator_it_is_given() -> None:
    given = []

    def allocate(num_bytes: int) -> NDArray[np.uint8]:
        given.append(np.zeros(num_bytes, np.uint8))
        return given[-1]

    batch = Batch(2, [(5,), ()], allocate)
    batch.labels[:] = 3, 4
    batch.fit_stored((1, 2, 2), np.array([[1, 2, 0], [3, 4, 1]], np.int32))[...] = 7
    assert batch.labels.tolist() == [3, 4]
    assert batch.block is given[-1]
    images, labels, windows = [place.of(given[-1]) for place in batch.places]
    assert images.tolist() == [[[[7, 7], [7, 7]]]] * 2
    assert labels.tolist() == [3, 4]
    assert windows.tolist() == [[1, 2, 0], [3, 4, 1]]
    assert all(place.offset % 256 == 0 for place in batch.places)


def test_lay_out_puts_arrays_behind_one_another_at_multiples_of_256() -> None:
    kinds = [((3, 100), np.dtype(np.uint8)), ((3,), np.dtype(np.float32)), ((64,), np.dtype(np.float32))]
    places, num_bytes = lay_out(kinds, num_windows=3)
    assert [place.offset for place in places] == [0, 512, 768, 1024]
    assert (places[3].shape, places[3].dtype, num_bytes) == ((3, 3), np.dtype(np.int32), 1280)
    assert lay_out(kinds)[1] == 1024
