"""Layers without bottoms that read no records: Input, DummyData."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import Array, Row, cases, make_rig


def dummy_data(fields: str) -> str:
    return f'type: "DummyData" dummy_data_param {{ {fields} }}'


def input_layer(fields: str) -> str:
    return f'type: "Input" input_param {{ {fields} }}'


ROWS = (
    Row(
        "input-one-shape",
        input_layer("shape { dim: 2 dim: 3 }"),
        (),
        lambda: (np.zeros((2, 3)), np.zeros((2, 3))),
        num_tops=2,
    ),
    Row(
        "input-shape-per-top",
        input_layer("shape { dim: 2 } shape { dim: 1 dim: 4 }"),
        (),
        lambda: (np.zeros(2), np.zeros((1, 4))),
        num_tops=2,
    ),
    Row("input-no-shape", 'type: "Input"', (), lambda: np.zeros(0)),
    Row(
        "dummy-data-constant",
        dummy_data("shape { dim: 2 dim: 3 } data_filler { value: 1.5 }"),
        (),
        lambda: (np.full((2, 3), 1.5), np.full((2, 3), 1.5)),
        num_tops=2,
    ),
    Row(
        "dummy-data-per-top",
        dummy_data("shape { dim: 2 } shape { dim: 1 } data_filler { value: 1 } data_filler { value: 2 }"),
        (),
        lambda: (np.ones(2), np.full(1, 2.0)),
        num_tops=2,
    ),
    Row(
        "dummy-data-legacy",
        dummy_data("num: 2 num: 1 channels: 3 height: 4 width: 5"),
        (),
        lambda: (np.zeros((2, 3, 4, 5)), np.zeros((1, 3, 4, 5))),
        num_tops=2,
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_data_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_input_reshaped_from_outside_keeps_that_shape() -> None:
    rig = make_rig(input_layer("shape { dim: 2 dim: 3 }"), [])
    rig.top[0].reshape(5, 3)
    rig.top[0].data[...] = 7
    rig.layer.reshape(rig.bottom, rig.top)
    np.testing.assert_array_equal(rig.forward()[0], np.full((5, 3), 7))


def _drawn(num_passes: int) -> list[Array]:
    rig = make_rig(dummy_data('shape { dim: 100 } data_filler { type: "gaussian" std: 2 }'), [], num_tops=2)
    rig.layer.context.random.pass_index = num_passes
    return rig.forward()


def test_dummy_data_random_tops_are_drawn_anew_in_each_pass() -> None:
    first, again, later = _drawn(0), _drawn(0), _drawn(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], later[0])


def test_dummy_data_constant_that_was_overwritten_is_not_filled_again() -> None:
    rig = make_rig(dummy_data("shape { dim: 2 } data_filler { value: 3 }"), [])
    rig.top[0].data[...] = 5
    np.testing.assert_array_equal(rig.forward()[0], [5, 5])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            input_layer("shape { dim: 1 } shape { dim: 2 } shape { dim: 3 }"),
            "input_param.shape must be given once or once per top (0, 1, 2), got 3",
        ),
        (input_layer("shape { dim: 2 dim: -1 }"), "input_param.shape.dim must be 0 or more, got -1"),
        (dummy_data(""), "dummy_data_param.shape must be given once or once per top (1, 2), got 0"),
        (
            dummy_data("shape { dim: 1 } num: 2"),
            "dummy_data_param.shape must not be given together with num, channels, height and width",
        ),
        (
            dummy_data("num: 2 channels: 3 height: 4"),
            "dummy_data_param.width must be given once or once per top (1, 2), got 0",
        ),
        (
            dummy_data("shape { dim: 1 } data_filler { } data_filler { } data_filler { }"),
            "dummy_data_param.data_filler must be given once or once per top (0, 1, 2), got 3",
        ),
    ],
)
def test_data_layer_mistake_is_one_sentence(layer: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [], num_tops=2)
    assert str(caught.value) == message
