from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob, BlobVec
from dtrain.core.tensor import HostMemory


def test_blob_data_and_diff_are_writable_zeros_of_its_shape() -> None:
    blob = Blob((2, 3))
    blob.data[0, 1] = 5
    blob.diff[...] = 2
    assert blob.data.tolist() == [[0, 5, 0], [0, 0, 0]]
    assert blob.diff.sum() == 12
    assert (blob.data.dtype, blob.diff.dtype) == (np.float32, np.float32)
    assert (blob.shape, blob.count, repr(blob)) == ((2, 3), 6, "Blob(2, 3)")


def test_blob_without_axes_is_a_scalar() -> None:
    blob = Blob(())
    assert blob.count == 1
    blob.data[...] = 3
    assert blob.data.item() == 3


def test_blob_data_written_by_an_engine_shows_and_back() -> None:
    blob, memory = Blob((2,)), HostMemory()
    blob.write_data(memory)[...] = [1, 2]
    blob.write_diff(memory)[...] = [3, 4]
    blob.data[0] += 10
    blob.update_diff()[1] += 10
    assert blob.read_data(memory).tolist() == [11, 2]
    assert blob.read_diff(memory).tolist() == [3, 14]
    blob.update_data(memory)[1] = 7
    assert blob.read_data().tolist() == [11, 7]
    assert blob.read_diff().tolist() == [3, 14]


def test_reshape_changes_data_and_diff() -> None:
    blob = Blob((4,))
    blob.data[...] = blob.diff[...] = [1, 2, 3, 4]
    blob.reshape(2, 2)
    assert blob.data.tolist() == blob.diff.tolist() == [[1, 2], [3, 4]]


def test_reshape_to_too_many_axes_is_a_bug() -> None:
    Blob().reshape(*[1] * 32)
    with pytest.raises(AssertionError, match="at most 32 axes, got 33"):
        Blob().reshape(*[1] * 33)


def test_share_data_and_share_diff_are_independent() -> None:
    first, second = Blob((2, 2)), Blob((4,))
    second.share_data(first)
    first.data[...] = 1
    first.diff[...] = 1
    assert second.data.tolist() == [1, 1, 1, 1]
    assert second.diff.tolist() == [0, 0, 0, 0]
    second.share_diff(first)
    assert second.diff.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("shape", "expected"), [((), (1, 1, 1, 1)), ((5,), (5, 1, 1, 1)), ((2, 3, 4, 5), (2, 3, 4, 5))]
)
def test_legacy_shape_of_missing_axes_is_one(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    blob = Blob(shape)
    assert (blob.num, blob.channels, blob.height, blob.width) == expected


def test_legacy_shape_of_five_axes_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="at most 4 axes, got"):
        _ = Blob((1, 1, 1, 1, 1)).num


def test_add_blob_appends_zeros_of_the_shape() -> None:
    params = BlobVec()
    blob = params.add_blob(2, 3)
    assert params == [blob]
    assert blob.shape == (2, 3)
