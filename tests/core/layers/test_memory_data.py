from __future__ import annotations

import logging

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.layers.memory_data import MemoryData
from tests.core.layers.layer_harness import Array, Rig, make_rig

FIELDS = "batch_size: 2 channels: 3 height: 1 width: 2"


def make(fields: str = FIELDS, more: str = "") -> tuple[Rig, MemoryData]:
    rig = make_rig(f'type: "MemoryData" memory_data_param {{ {fields} }} {more}', [], 2, dtype=np.float32)
    assert isinstance(rig.layer, MemoryData)
    return rig, rig.layer


def rows(num_rows: int) -> tuple[Array, Array]:
    """Return data in which each value tells its row and place, and labels 100, 101 …"""
    data = np.arange(num_rows * 6, dtype=np.float32).reshape(num_rows, 3, 1, 2)
    return data, np.arange(100, 100 + num_rows, dtype=np.float32).reshape(-1, 1, 1, 1)


def test_memory_data_tops_have_the_shapes_of_its_fields_before_and_after_forward() -> None:
    rig, layer = make()
    assert [blob.shape for blob in rig.top] == [(2, 3, 1, 2), (2,)]
    layer.set_arrays(*rows(2))
    rig.forward()
    assert [blob.shape for blob in rig.top] == [(2, 3, 1, 2), (2, 1, 1, 1)]


def test_memory_data_yields_the_rows_in_order_and_over_again() -> None:
    rig, layer = make()
    data, labels = rows(6)
    layer.set_arrays(data, labels)
    for first in (0, 2, 4, 0, 2):
        tops = rig.forward()
        np.testing.assert_array_equal(tops[0], data[first : first + 2])
        np.testing.assert_array_equal(tops[1], labels[first : first + 2])
    assert layer.position == 10


def test_memory_data_given_new_arrays_starts_at_their_first_row() -> None:
    rig, layer = make()
    layer.set_arrays(*rows(6))
    rig.forward()
    data, labels = rows(2)
    layer.set_arrays(data + 50, labels)
    np.testing.assert_array_equal(rig.forward()[0], data + 50)
    assert layer.position == 2


def test_memory_data_reads_the_callers_arrays_and_leaves_them_alone() -> None:
    rig, layer = make()
    data, labels = rows(2)
    layer.set_arrays(data, labels)
    data[0] = 7
    rig.forward()
    assert np.all(rig.top[0].data[0] == 7)
    rig.top[0].data[...] = 9
    assert data[1, 0, 0, 0] == 6


def test_memory_data_without_arrays_says_what_to_call() -> None:
    rig, _ = make()
    with pytest.raises(
        UserError, match=r"^has no arrays to read; call net.set_input_arrays\(data, labels\) first$"
    ):
        rig.forward()


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ("", "batch_size, channels, height, width"),
        ("batch_size: 2 height: 1", "channels, width"),
        ("channels: 2 height: 1 width: 1", "batch_size"),
    ],
)
def test_memory_data_without_a_field_names_it(fields: str, missing: str) -> None:
    with pytest.raises(UserError) as caught:
        make(fields)
    assert str(caught.value) == (
        f"memory_data_param must give batch_size, channels, height, width, each at least 1, got no {missing}"
    )


DATA, LABELS = rows(4)


@pytest.mark.parametrize(
    ("data", "labels", "problem"),
    [
        (
            DATA.astype(np.float64),
            LABELS,
            "data must be a float32 array, contiguous in C order, got float64; use ",
        ),
        (
            DATA[::2],
            LABELS[:2].copy(),
            "data must be a float32 array, contiguous in C order, got float32, not ",
        ),
        (DATA, LABELS.astype(int), "labels must be a float32 array, contiguous in C order, got int64; use "),
        (DATA[0], LABELS, "data must have the shape (n, 3, 1, 2), got (3, 1, 2)"),
        (DATA.reshape(4, 3, 2, 1), LABELS, "data must have the shape (n, 3, 1, 2), got (4, 3, 2, 1)"),
        (DATA, LABELS.reshape(4), "labels must have the shape (n, 1, 1, 1), got (4,)"),
        (DATA, LABELS[:2], "data and labels must have as many rows, got 4 and 2"),
        (DATA[:3], LABELS[:3], "the number of rows must be a multiple of batch_size, 2, got 3"),
        (DATA[:0], LABELS[:0], "the number of rows must be a multiple of batch_size, 2, got 0"),
    ],
)
def test_memory_data_given_arrays_that_do_not_fit_says_so(data: Array, labels: Array, problem: str) -> None:
    _, layer = make()
    with pytest.raises(UserError) as caught:
        layer.set_arrays(data, labels)
    assert str(caught.value).startswith(problem)


def test_memory_data_state_is_the_place_to_read_on_from() -> None:
    rig, layer = make()
    layer.set_arrays(*rows(4))
    rig.forward()
    state = layer.get_state()
    assert state is not None
    other, other_layer = make()
    other_layer.set_arrays(*rows(4))
    other_layer.set_state(state)
    np.testing.assert_array_equal(other.forward()[0], rows(4)[0][2:])
    other_layer.begin_anew()
    np.testing.assert_array_equal(other.forward()[0], rows(4)[0][:2])
    with pytest.raises(
        UserError, match="position must be a number of rows, got b'x'; the snapshot is of another"
    ):
        layer.set_state(b"x")


def test_memory_data_with_transform_param_says_that_it_is_not_applied(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        make()
        assert not caplog.records
        rig, layer = make(more="transform_param { scale: 2 }")
    assert caplog.messages == ['layer "layer": transform_param is not applied to arrays from memory']
    layer.set_arrays(*rows(2))
    np.testing.assert_array_equal(rig.forward()[0], rows(2)[0])
