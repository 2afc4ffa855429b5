from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob, BlobVec
from dtrain.core.caffe_state import STATE
from dtrain.core.engines.cupy.memory import device_memory
from dtrain.core.errors import UserError
from dtrain.core.tensor import HostMemory
from tests.played.cupy import play_cupy


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


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ([1] * 33, "a blob must have at most 32 axes, got 33"),
        ((2, -1), "a blob's shape must be whole numbers, 0 or more, got (2, -1)"),
        ((2, 1.5), "a blob's shape must be whole numbers, 0 or more, got (2, 1.5)"),
        (((2, 3),), "a blob's shape must be whole numbers, 0 or more, got ((2, 3),)"),
    ],
)
def test_reshape_to_what_is_no_shape_says_so(shape: Sequence[Any], problem: str) -> None:
    for reshape in (Blob((5,)).reshape, BlobVec().add_blob):
        with pytest.raises(UserError) as caught:
            reshape(*shape)
        assert str(caught.value) == problem


def test_reshape_takes_numpys_whole_numbers_and_32_axes() -> None:
    blob = Blob()
    blob.reshape(*np.array([2, 3]))
    assert blob.shape == (2, 3)
    assert {type(length) for length in blob.shape} == {int}
    blob.reshape(*[1] * 32)
    assert blob.count == 1


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


def test_legacy_shape_of_five_axes_says_so() -> None:
    with pytest.raises(UserError, match=r"at most 4 axes, got \(1, 1, 1, 1, 1\); use shape$"):
        _ = Blob((1, 1, 1, 1, 1)).num


@pytest.mark.parametrize("name", ["_gpu_data_ptr", "_gpu_diff_ptr"])
def test_gpu_address_without_a_gpu_says_so(name: str) -> None:
    with pytest.raises(UserError) as caught:
        getattr(Blob(), name)
    assert str(caught.value) == (
        f"blob.{name}: the values must be on a GPU, but the CPU computes; use blob.{name[5:9]}"
    )


@pytest.mark.parametrize("name", ["data", "diff"])
def test_gpu_address_of_values_on_a_gpu_is_where_they_are_changed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    memory = device_memory(play_cupy(monkeypatch))
    blob = Blob((2, 3))
    getattr(blob, name)[...] = 1
    array = getattr(blob, f"read_{name}")(memory)
    assert getattr(blob, f"_gpu_{name}_ptr") == array.data.ptr
    array[0, 1] = 5  # as who has the address may do, with nobody told
    assert getattr(blob, name).tolist() == [[1, 5, 1], [1, 1, 1]]


def test_gpu_address_of_values_never_on_a_gpu_is_in_the_memory_of_the_threads_nets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = device_memory(play_cupy(monkeypatch))
    monkeypatch.setattr(STATE, "gpu_memory", memory)
    blob = Blob((2,))
    blob.data[...] = [3, 4]
    address = blob._gpu_data_ptr
    array = blob.read_data(memory)
    assert (array.data.ptr, array.get().tolist()) == (address, [3, 4])


def test_data_and_diff_cannot_be_replaced_by_an_array() -> None:
    blob = Blob((2,))
    for name in ("data", "diff"):
        with pytest.raises(AttributeError):
            setattr(blob, name, np.zeros(2))


def test_add_blob_appends_zeros_of_the_shape() -> None:
    params = BlobVec()
    blob = params.add_blob(2, 3)
    assert params == [blob]
    assert blob.shape == (2, 3)


def vec_of(*values: float) -> BlobVec:
    """Return a vector with a blob of shape (2,) for each value, filled with it; diffs are ten times it."""
    params = BlobVec()
    for value in values:
        blob = params.add_blob(2)
        blob.data[...], blob.diff[...] = value, 10 * value
    return params


def test_blob_assigned_to_a_place_shares_data_and_diff_and_the_blob_there_stays() -> None:
    params, other = vec_of(1, 2), vec_of(3)
    mine = params[-1]
    params[-1] = other[0]
    assert params[1] is mine
    other[0].data[0], mine.diff[1] = 7, 8
    assert mine.data.tolist() == [7, 3]
    assert other[0].diff.tolist() == [30, 8]
    assert params[0].data.tolist() == [1, 1]


def test_blob_assigned_where_memory_is_kept_hands_over_its_data() -> None:
    params, other = vec_of(1), vec_of(3)
    params.keeps_memory = True
    memory = params[0].data
    params[0] = other[0]
    other[0].data[0] = 7
    assert memory.tolist() == [3, 3]
    assert params[0].diff.tolist() == [10, 10]


def test_slice_assigned_replaces_the_blobs() -> None:
    params, other = vec_of(1, 2), vec_of(3, 4, 5)
    params[:] = other
    assert list(params) == list(other)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.zeros(2), "a param must be assigned a blob, got ndarray; to set values use .data[...] = …"),
        (Blob((3,)), "a param of shape (2,) must be assigned a blob of it, got (3,)"),
    ],
)
def test_what_does_not_fit_assigned_to_a_place_says_so(value: object, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        vec_of(1)[0] = value
    assert str(caught.value) == problem


def test_blob_assigned_beyond_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        vec_of(1)[1] = Blob((2,))


def test_blob_vec_appends_extends_and_iterates() -> None:
    params, other = vec_of(1), vec_of(2, 3)
    params.append(other[0])
    params.extend([other[1]])
    assert len(params) == 3
    assert [blob.data[0] for blob in params] == [1, 2, 3]


def test_add_to_diff_sums_gradients_from_zero_after_clear_diff() -> None:
    blob, elsewhere = Blob((2, 2)), HostMemory()
    for _ in range(2):
        blob.write_diff()[...] = np.nan
        blob.clear_diff()
        blob.add_to_diff(np.array([[1, 2], [3, 4]]))
        blob.add_to_diff(np.array([10, 20]), elsewhere)  # a gradient that fits
        assert blob.read_diff().tolist() == [[11, 22], [13, 24]]


def test_add_to_diff_adds_to_what_somebody_holds_and_changed() -> None:
    blob = Blob((2,))
    diff = blob.diff
    blob.clear_diff()
    diff[0] = 5
    blob.add_to_diff(np.ones(2))
    assert diff.tolist() == [6, 1]
