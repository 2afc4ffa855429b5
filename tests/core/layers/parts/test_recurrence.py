"""What recurrent layers carry from one batch to the next, and where gradients stop."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers import recurrent_formulas as formulas
from tests.core.layers.layer_harness import TEST, TRAIN, Array, Rig, make_rig
from tests.core.net_builder import inputs, make_net

FORMULAS = {"LSTM": formulas.lstm, "RNN": formulas.rnn}
KINDS = pytest.mark.parametrize("kind", FORMULAS)
RANDOM = np.random.default_rng(8)


def make(kind: str, cont: Array, phase: int = TRAIN) -> Rig:
    """Return a layer of 5 units on random x (T, N, 2), with random params."""
    x = np.random.default_rng(1).standard_normal((*cont.shape, 2))
    rig = make_rig(f'type: "{kind}" recurrent_param {{ num_output: 5 }}', [x, cont], phase=phase)
    random = np.random.default_rng(2)
    for blob in rig.layer.blobs:
        blob.data[...] = random.standard_normal(blob.shape)
    return rig


def params_of(rig: Rig) -> list[Array]:
    return [blob.data.copy() for blob in rig.layer.blobs]


@KINDS
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_recurrent_state_goes_on_into_the_next_batches(kind: str, phase: int) -> None:
    x = RANDOM.standard_normal((6, 3, 2))
    cont = np.ones((6, 3))
    cont[0] = 0
    rig = make(kind, cont[:2], phase)
    pieces = []
    for start in (0, 2, 4):
        rig.feed([x[start : start + 2], cont[start : start + 2]])
        pieces += rig.forward()
    np.testing.assert_allclose(np.concatenate(pieces), FORMULAS[kind](x, cont, *params_of(rig)), rtol=1e-10)


@KINDS
def test_recurrent_state_at_first_is_zero(kind: str) -> None:
    rig = make(kind, np.ones((4, 3)))
    (top,) = rig.forward()
    begun = np.ones((4, 3))
    begun[0] = 0
    np.testing.assert_allclose(
        top, FORMULAS[kind](rig.bottom[0].data, begun, *params_of(rig)), rtol=1e-10, atol=1e-14
    )


@KINDS
def test_recurrent_cont_of_zero_in_the_middle_begins_anew(kind: str) -> None:
    cont = np.ones((5, 2))
    cont[0] = cont[3, 1] = 0
    rig = make(kind, cont)
    (top,) = rig.forward()
    x = rig.bottom[0].data
    alone = FORMULAS[kind](x[3:, 1:], np.array([[0.0], [1.0]]), *params_of(rig))
    np.testing.assert_allclose(top[3:, 1:], alone, rtol=1e-10)
    goes_on = FORMULAS[kind](x[:, :1], cont[:, :1], *params_of(rig))
    np.testing.assert_allclose(top[:, :1], goes_on, rtol=1e-10)


@KINDS
def test_recurrent_stream_that_stays_keeps_its_state_when_n_changes(kind: str) -> None:
    x = RANDOM.standard_normal((6, 4, 2))
    rig = make(kind, np.zeros((2, 3)))
    tops = []
    for start, num_streams in ((0, 3), (2, 2), (4, 4)):
        rig.feed([x[start : start + 2, :num_streams], np.ones((2, num_streams))])
        tops += rig.forward()
    cont = np.ones((6, 4))
    cont[0] = 0
    cont[4, 2:] = 0  # left after the first batch, or new in the last
    expected = FORMULAS[kind](x, cont, *params_of(rig))
    for start, top in zip((0, 2, 4), tops, strict=True):
        np.testing.assert_allclose(top, expected[start : start + 2, : top.shape[1]], rtol=1e-10, atol=1e-14)


@KINDS
def test_recurrent_batch_without_streams_is_empty_and_forgets(kind: str) -> None:
    rig = make(kind, np.ones((4, 3)))
    x = rig.bottom[0].data.copy()
    (first,) = rig.forward()
    rig.feed([np.zeros((4, 0, 2)), np.zeros((4, 0))])
    (top,) = rig.forward()
    rig.backward([top])
    assert top.shape == (4, 0, 5)
    assert rig.bottom[0].diff.shape == (4, 0, 2)
    rig.feed([x, np.ones((4, 3))])
    np.testing.assert_array_equal(rig.forward()[0], first)


@KINDS
def test_recurrent_state_that_is_set_is_where_another_layer_goes_on(kind: str) -> None:
    first, second = RANDOM.standard_normal((2, 2, 3, 2))
    rig, other = (make(kind, np.ones((2, 3))) for _ in range(2))
    rig.feed([first, np.ones((2, 3))])
    rig.forward()
    state = rig.layer.get_state()
    assert state is not None
    other.layer.set_state(state)
    assert other.layer.get_state() == state
    tops = []
    for each in (rig, other):
        each.feed([second, np.ones((2, 3))])
        tops += each.forward()
    begun = np.array([[0.0] * 3] + [[1.0] * 3] * 3)
    expected = FORMULAS[kind](np.concatenate([first, second]), begun, *params_of(rig))[2:]
    np.testing.assert_allclose(tops[1], expected, rtol=1e-10)
    np.testing.assert_array_equal(tops[1], tops[0])


@KINDS
def test_recurrent_state_of_fewer_streams_is_taken_for_the_first_ones(kind: str) -> None:
    x = RANDOM.standard_normal((2, 3, 2))
    narrow, rig = make(kind, np.ones((2, 2))), make(kind, np.ones((2, 3)))
    narrow.forward()
    state = narrow.layer.get_state()
    assert state is not None
    rig.layer.set_state(state)
    rig.feed([x, np.ones((2, 3))])
    narrow.feed([x[:, :2], np.ones((2, 2))])
    (top,), (of_first,) = rig.forward(), narrow.forward()
    np.testing.assert_allclose(top[:, :2], of_first, rtol=1e-10)
    begun = np.array([[0.0], [1.0]])
    np.testing.assert_allclose(top[:, 2:], FORMULAS[kind](x[:, 2:], begun, *params_of(rig)), rtol=1e-10)


@KINDS
def test_recurrent_state_that_begins_anew_is_zero(kind: str) -> None:
    rig = make(kind, np.ones((4, 3)))
    (first,) = rig.forward()
    state = rig.layer.get_state()
    assert state is not None
    assert np.any(np.frombuffer(state, np.float64))
    rig.layer.begin_anew()
    assert rig.layer.get_state() == bytes(len(state))
    np.testing.assert_array_equal(rig.forward()[0], first)


def test_recurrent_state_of_another_size_is_refused() -> None:
    layer = make("LSTM", np.ones((4, 3))).layer
    with pytest.raises(UserError) as caught:
        layer.set_state(bytes(3 * 2 * 4 * 8))
    assert str(caught.value) == (
        "carried state must be a multiple of 80 bytes (h, c of 5 units), got 192; the snapshot is of another net"
    )


def test_recurrent_state_that_is_exposed_is_not_carried() -> None:
    layer = 'type: "LSTM" recurrent_param { num_output: 5 expose_hidden: true }'
    rig = make_rig(layer, [np.ones(shape) for shape in SHAPES.values()], num_tops=3)
    assert rig.layer.get_state() is None


@KINDS
def test_recurrent_gradient_stops_at_the_batch(kind: str) -> None:
    """In the second batch the state is a number like any other: the slope along x is of that batch alone."""
    rig = make(kind, np.zeros((2, 3)))
    first, second = RANDOM.standard_normal((2, 2, 3, 2))
    weights, direction = RANDOM.standard_normal((2, 3, 5)), RANDOM.standard_normal((2, 3, 2))
    cont = np.array([[0.0] * 3] + [[1.0] * 3] * 3)
    for batch in (0, 1):
        rig.feed([(first, second)[batch], cont[2 * batch : 2 * batch + 2]])
        rig.forward()
    rig.backward([weights])

    def objective(step: float) -> float:
        x = np.concatenate([first, second + step * direction])
        return float((weights * FORMULAS[kind](x, cont, *params_of(rig))[2:]).sum())

    slope = (objective(1e-5) - objective(-1e-5)) / 2e-5
    np.testing.assert_allclose((rig.bottom[0].diff * direction).sum(), slope, rtol=1e-6)


@KINDS
def test_recurrent_gradient_after_work_in_place_on_the_top_is_the_same(kind: str) -> None:
    diffs = []
    for overwritten in (False, True):
        rig = make(kind, np.zeros((4, 3)))
        (top,) = rig.forward()
        if overwritten:
            rig.top[0].data[...] = 7
        rig.backward([np.ones_like(top)])
        diffs.append([blob.diff.copy() for blob in (rig.bottom[0], *rig.layer.blobs)])
    for plain, after in zip(*diffs, strict=True):
        np.testing.assert_array_equal(after, plain)


EXPOSED = """
layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" bottom: "h0" bottom: "c0" top: "h" top: "hT" top: "cT"
  recurrent_param { num_output: 5 expose_hidden: true weight_filler { type: "gaussian" } } }
"""
SHAPES = {"x": (2, 3, 4), "cont": (2, 3), "h0": (1, 3, 5), "c0": (1, 3, 5)}


def test_recurrent_initial_state_that_learns_is_refused() -> None:
    learned = (
        'layer { name: "p" type: "InnerProduct" bottom: "z" top: "h0" inner_product_param { num_output: 5 '
    )
    learned += "axis: 2 } }"
    loss = 'layer { name: "r" type: "EuclideanLoss" bottom: "h" bottom: "goal" top: "loss" }'
    shapes = {"x": (2, 3, 4), "cont": (2, 3), "c0": (1, 3, 5), "z": (1, 3, 4), "goal": (2, 3, 5)}
    with pytest.raises(UserError) as caught:
        make_net(inputs(**shapes) + learned + EXPOSED + loss)
    assert str(caught.value).endswith(
        'layer "l": bottom "h0" can\'t get a gradient from LSTM, but comes from layers that learn; '
        "set propagate_down: false for it"
    )


def test_recurrent_initial_state_under_force_backward_gets_no_gradient() -> None:
    net = make_net("force_backward: true " + inputs(**SHAPES) + EXPOSED)
    for name in SHAPES:
        net.blobs[name].data[...] = RANDOM.standard_normal(SHAPES[name])
    net.forward()
    net.blobs["h"].diff[...] = 1
    net.backward()
    assert np.any(net.blobs["x"].diff)
    assert not any(np.any(net.blobs[name].diff) for name in ("cont", "h0", "c0"))


@pytest.mark.parametrize(
    ("diffs", "num_warnings"), [((0, 0, 0), 0), ((1, 0, 0), 0), ((1, 0, 1), 1), ((0, 1, 1), 2)]
)
def test_recurrent_final_state_with_a_gradient_is_told_once(
    diffs: tuple[int, ...], num_warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    layer = 'type: "LSTM" recurrent_param { num_output: 5 expose_hidden: true }'
    rig = make_rig(layer, [np.ones(shape) for shape in SHAPES.values()], num_tops=3)
    tops = rig.forward()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            rig.backward([np.full_like(top, diff) for top, diff in zip(tops, diffs, strict=True)])
    assert len(caplog.records) == num_warnings
    assert all("no gradient flows back from the final state" in message for message in caplog.messages)


def test_recurrent_debug_info_is_told_to_show_nothing(caplog: pytest.LogCaptureFixture) -> None:
    make_rig(
        'type: "RNN" recurrent_param { num_output: 5 debug_info: true }',
        [np.ones((2, 3, 4)), np.ones((2, 3))],
    )
    assert caplog.messages == [
        'layer "layer": recurrent_param.debug_info shows nothing, as the steps are no layers of their own'
    ]
