"""What is said when a recurrent layer's bottoms are too few, too many or of the wrong shape."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import Rig, make_rig

EXPOSED = "expose_hidden: true"
X, CONT, STATIC, STATE = (4, 3, 2), (4, 3), (3, 7), (1, 3, 5)

Shapes = list[tuple[int, ...]]


def rig_of(kind: str, shapes: Shapes, fields: str = "", num_tops: int = 1) -> Rig:
    layer = f'type: "{kind}" recurrent_param {{ num_output: 5 {fields} }}'
    return make_rig(layer, [np.ones(shape) for shape in shapes], num_tops)


@pytest.mark.parametrize(
    ("kind", "shapes", "fields", "num_tops", "message"),
    [
        (
            "LSTM",
            [X, CONT, STATE, STATE],
            "",
            1,
            "needs 2 bottoms (x, cont) or 3 (x, cont, static) without recurrent_param.expose_hidden, got 4",
        ),
        (
            "LSTM",
            [X, CONT, STATIC],
            EXPOSED,
            3,
            "needs 4 bottoms (x, cont, h_0, c_0) or 5 (x, cont, static, h_0, c_0) with "
            "recurrent_param.expose_hidden, got 3",
        ),
        (
            "RNN",
            [X, CONT],
            EXPOSED,
            2,
            "needs 3 bottoms (x, cont, h_0) or 4 (x, cont, static, h_0) with "
            "recurrent_param.expose_hidden, got 2",
        ),
        ("LSTM", [X, CONT], "", 3, "needs 1 top (h) without recurrent_param.expose_hidden, got 3"),
        (
            "LSTM",
            [X, CONT, STATE, STATE],
            EXPOSED,
            1,
            "needs 3 tops (h, h_T, c_T) with recurrent_param.expose_hidden, got 1",
        ),
        (
            "RNN",
            [X, CONT, STATE],
            EXPOSED,
            1,
            "needs 2 tops (h, h_T) with recurrent_param.expose_hidden, got 1",
        ),
        (
            "LSTM",
            [(4, 3), CONT],
            "",
            1,
            'bottom 0 "x0" must be (T, N, inputs …) with at least 1 time step, got shape (4, 3)',
        ),
        (
            "RNN",
            [(0, 3, 2), (0, 3)],
            "",
            1,
            'bottom 0 "x0" must be (T, N, inputs …) with at least 1 time step, got shape (0, 3, 2)',
        ),
        (
            "LSTM",
            [X, (3, 4)],
            "",
            1,
            'bottom 1 "x1" must have one value per step and stream of x, (T, N) = (4, 3), got shape (3, 4)',
        ),
        (
            "LSTM",
            [X, CONT, (4, 7)],
            "",
            1,
            'bottom 2 "x2" must be (N, inputs …) for the N = 3 streams of x, got shape (4, 7)',
        ),
        (
            "RNN",
            [X, CONT, (3,)],
            "",
            1,
            'bottom 2 "x2" must be (N, inputs …) for the N = 3 streams of x, got shape (3,)',
        ),
        (
            "LSTM",
            [X, CONT, STATIC, STATE, (1, 5, 3)],
            EXPOSED,
            3,
            'bottom 4 "x4" must be an initial state of shape (1, N, num_output) = (1, 3, 5), got shape (1, 5, 3)',
        ),
    ],
)
def test_sequence_bottoms_mistake_is_one_sentence(
    kind: str, shapes: Shapes, fields: str, num_tops: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        rig_of(kind, shapes, fields, num_tops)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [(5, 3, 2), (5, 3), STATIC],
            'bottom 0 "x0" must keep the 4 time steps of the net\'s setup, got shape (5, 3, 2)',
        ),
        (
            [(4, 3, 9), CONT, STATIC],
            'bottom 0 "x0" must keep 2 values per step and stream, as the weight was made for, '
            "got shape (4, 3, 9)",
        ),
        (
            [X, CONT, (3, 2)],
            'bottom 2 "x2" must keep 7 values per stream, as the weight was made for, got shape (3, 2)',
        ),
        (
            [(4, 2, 2), CONT, STATIC],
            'bottom 1 "x1" must have one value per step and stream of x, (T, N) = (4, 2), got shape (4, 3)',
        ),
    ],
)
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_sequence_bottoms_changed_later_is_one_sentence(kind: str, shapes: Shapes, message: str) -> None:
    rig = rig_of(kind, [X, CONT, STATIC])
    with pytest.raises(UserError) as caught:
        rig.feed([np.ones(shape) for shape in shapes])
    assert str(caught.value) == message


def test_sequence_bottoms_of_the_same_count_in_other_axes_are_fine() -> None:
    rig = rig_of("LSTM", [(4, 3, 6), CONT])
    rig.feed([np.ones((4, 3, 2, 3)), np.ones(CONT)])
    assert rig.forward()[0].shape == (4, 3, 5)


def test_recurrent_num_output_missing_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^recurrent_param.num_output must be at least 1, got none$"):
        make_rig('type: "LSTM"', [np.ones(X), np.ones(CONT)])
