"""Layers whose steps hand on a state: LSTM, RNN, LSTMUnit. What they carry from batch to batch is in
parts/test_recurrence.py; here sequences begin in each batch, or their states are exposed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers import recurrent_formulas as formulas
from tests.core.layers.layer_harness import Array, Row, cases, make_rig


def make_cont(*shape: int, is_begun: bool = False) -> Array:
    """Return random 0s and 1s (T, N); unless begun, all streams begin at step 0."""
    cont = np.random.default_rng(shape[1]).integers(0, 2, shape).astype(np.float64)
    if not is_begun:
        cont[0] = 0
    return cont


def recurrent(kind: str, num_output: int = 5, fields: str = "") -> str:
    return f'type: "{kind}" recurrent_param {{ num_output: {num_output} {fields} }}'


EXPOSED = "expose_hidden: true"
STATE = (1, 3, 5)

ROWS = (
    Row("lstm", recurrent("LSTM"), ((4, 3, 6), make_cont(4, 3)), formulas.lstm, batches=()),
    Row("lstm-one-step", recurrent("LSTM", 2), ((1, 4, 3), np.zeros((1, 4))), formulas.lstm, batches=()),
    Row("lstm-one-unit", recurrent("LSTM", 1), ((5, 1, 1), make_cont(5, 1)), formulas.lstm, batches=()),
    Row("lstm-images", recurrent("LSTM"), ((3, 2, 2, 3, 2), make_cont(3, 2)), formulas.lstm, batches=()),
    Row(
        "lstm-all-begin-once",
        recurrent("LSTM"),
        ((6, 2, 3), np.array([[0.0, 0.0]] + [[1.0, 1.0]] * 5)),
        formulas.lstm,
        batches=(),
    ),
    Row(
        "lstm-partly-forgotten",
        recurrent("LSTM"),
        ((3, 2, 3), np.array([[0.0, 0.0], [0.5, 0.25], [1.0, 0.75]])),
        formulas.lstm,
        batches=(),
    ),
    Row(
        "lstm-static",
        recurrent("LSTM"),
        ((4, 3, 6), make_cont(4, 3), (3, 2, 2)),
        formulas.lstm_static,
        batches=(),
    ),
    Row(
        "lstm-exposed",
        recurrent("LSTM", 5, EXPOSED),
        ((4, 3, 2), make_cont(4, 3, is_begun=True), STATE, STATE),
        formulas.lstm_exposed,
        num_tops=3,
        batches=(),
    ),
    Row(
        "lstm-static-exposed",
        recurrent("LSTM", 5, EXPOSED),
        ((2, 3, 2), np.ones((2, 3)), (3, 4), STATE, STATE),
        formulas.lstm_static_exposed,
        num_tops=3,
        batches=(),
    ),
    Row("rnn", recurrent("RNN"), ((4, 3, 6), make_cont(4, 3)), formulas.rnn, batches=()),
    Row("rnn-one-step", recurrent("RNN", 2), ((1, 4, 3), np.zeros((1, 4))), formulas.rnn, batches=()),
    Row("rnn-images", recurrent("RNN"), ((3, 2, 2, 3), make_cont(3, 2)), formulas.rnn, batches=()),
    Row(
        "rnn-static",
        recurrent("RNN"),
        ((4, 3, 6), make_cont(4, 3), (3, 4)),
        formulas.rnn_static,
        batches=(),
    ),
    Row(
        "rnn-exposed",
        recurrent("RNN", 5, EXPOSED),
        ((4, 3, 2), make_cont(4, 3, is_begun=True), STATE),
        formulas.rnn_exposed,
        num_tops=2,
        batches=(),
    ),
    Row(
        "rnn-static-exposed",
        recurrent("RNN", 5, EXPOSED),
        ((2, 3, 2), np.ones((2, 3)), (3, 4), STATE),
        formulas.rnn_static_exposed,
        num_tops=2,
        batches=(),
    ),
    Row(
        "lstm-unit",
        'type: "LSTMUnit"',
        ((1, 4, 3), (1, 4, 12), np.array([[1.0, 0.0, 1.0, 0.5]])),
        formulas.lstm_unit,
        num_tops=2,
        gradient_tops=(0, 1),
        batches=(),
    ),
    Row(
        "lstm-unit-hidden-only",
        'type: "LSTMUnit"',
        ((1, 2, 1), (1, 2, 4), np.ones((1, 2))),
        formulas.lstm_unit,
        num_tops=2,
        gradient_tops=(1,),
        batches=(),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_recurrent_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


@pytest.mark.parametrize(
    ("kind", "inputs", "shapes"),
    [
        ("LSTM", [(3, 2, 4, 2), (3, 2)], [(20, 8), (20,), (20, 5)]),
        ("LSTM", [(3, 2, 4), (3, 2), (2, 7)], [(20, 4), (20,), (20, 7), (20, 5)]),
        ("RNN", [(3, 2, 4, 2), (3, 2)], [(5, 8), (5,), (5, 5), (5, 5), (5,)]),
        ("RNN", [(3, 2, 4), (3, 2), (2, 7)], [(5, 4), (5,), (5, 7), (5, 5), (5, 5), (5,)]),
    ],
)
def test_recurrent_params_are_in_the_order_of_caffemodels(
    kind: str, inputs: list[tuple[int, ...]], shapes: list[tuple[int, ...]]
) -> None:
    fillers = 'weight_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: 3 }'
    rig = make_rig(recurrent(kind, 5, fillers), [np.zeros(shape) for shape in inputs])
    assert [blob.shape for blob in rig.layer.blobs] == shapes
    for blob in rig.layer.blobs:
        assert np.all(blob.data == (3 if len(blob.shape) == 1 else 2))


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_recurrent_weights_of_one_filler_are_drawn_apart(kind: str) -> None:
    rig = make_rig(
        recurrent(kind, 5, 'weight_filler { type: "gaussian" }'), [np.zeros((3, 2, 5)), np.zeros((3, 2))]
    )
    weights = [blob.data for blob in rig.layer.blobs if len(blob.shape) == 2]
    assert not np.array_equal(weights[0], weights[1])


def test_lstm_unit_of_an_empty_batch_is_empty() -> None:
    rig = make_rig('type: "LSTMUnit"', [np.ones((1, 2, 3)), np.ones((1, 2, 12)), np.ones((1, 2))], 2)
    rig.feed([np.ones((1, 0, 3)), np.ones((1, 0, 12)), np.ones((1, 0))])
    tops = rig.forward()
    rig.backward(tops)
    assert [top.shape for top in tops] == [(1, 0, 3)] * 2


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [(2, 2, 3), (2, 2, 12), (2, 2)],
            'bottom 0 "x0", the cell before, must be (1, N, H), got shape (2, 2, 3)',
        ),
        (
            [(1, 2, 3), (1, 2, 3), (1, 2)],
            'bottom 1 "x1", the gates\' sums, must have shape (1, 2, 12) for a cell of (1, 2, 3), got (1, 2, 3)',
        ),
        (
            [(1, 2, 3), (1, 2, 12), (2, 1)],
            'bottom 2 "x2", cont, must have shape (1, 2) for a cell of (1, 2, 3), got (2, 1)',
        ),
    ],
)
def test_lstm_unit_mistake_is_one_sentence(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig('type: "LSTMUnit"', [np.zeros(shape) for shape in shapes], num_tops=2)
    assert str(caught.value) == message
