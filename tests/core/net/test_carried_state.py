from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.carried_state import give_states, states_put_back, take_states
from dtrain.core.net.net import Net
from dtrain.core.snapshots import LayerState
from tests.core.conftest import WriteModule
from tests.core.net_builder import inputs, make_net

LAYERS = """
import caffe

class Kept(caffe.Layer):
    def setup(self, bottom, top): self.kept = self.param_str
    def reshape(self, bottom, top): pass
    def forward(self, bottom, top): pass
    def get_state(self): return self.kept.encode('ascii')
    def set_state(self, state): self.kept = state.decode('ascii')
"""
RECURRENT = (
    'layer { name: "rnn" type: "RNN" bottom: "x" bottom: "c" top: "h" recurrent_param { num_output: 2 } }'
)


@pytest.fixture(autouse=True)
def _layers(write_module: WriteModule) -> None:
    write_module("kept_layers", LAYERS)


def make(*states: tuple[str, str]) -> Net:
    """Return a net with an RNN of 2 × 2 state values, and a Python layer for each (name, state)."""
    text = inputs(x=(4, 2, 3), c=(4, 2)) + RECURRENT
    for name, state in states:
        text += f"""layer {{ name: "{name}" type: "Python"
          python_param {{ module: "kept_layers" layer: "Kept" param_str: "{state}" }} }}"""
    return make_net(text)


ZEROS = ("rnn", bytes(2 * 2 * 4))


def test_take_states_gives_those_of_layers_that_carry_something() -> None:
    assert take_states(make(("a", "1"), ("b", ""))) == [ZEROS, ("a", b"1"), ("b", b"")]
    assert take_states(make_net(inputs(x=(1,)))) == []


def test_give_states_goes_by_name_and_of_one_name_in_order() -> None:
    net = make(("a", "1"), ("b", "2"), ("b", "3"))
    states = [("b", b"30"), ("b", b"20"), ("a", b"10"), ("rnn", bytes(range(16)))]
    assert give_states(net, states) == []
    assert take_states(net) == [("rnn", bytes(range(16))), ("a", b"10"), ("b", b"30"), ("b", b"20")]


def test_give_states_names_layers_that_begin_anew_and_states_that_are_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = make(("a", "1"), ("b", "2"))
    give_states(net, [("rnn", bytes(range(16)))])
    anew = give_states(net, [("a", b"10"), ("a", b"11"), ("gone", b"13")])
    assert anew == [net.graph.nodes[2].title, net.graph.nodes[4].title]
    assert [title.split(": ")[1] for title in anew] == ['layer "rnn"', 'layer "b"']
    # a Python layer begins as its setup left it
    assert take_states(net) == [ZEROS, ("a", b"10"), ("b", b"2")]
    assert caplog.messages == [
        f'The state of layer "{name}" is left: no layer of that name carries one here'
        for name in ("a", "gone")
    ]


def test_states_put_back_leaves_no_trace_of_the_passes_inside() -> None:
    text = inputs(x=(4, 2, 3), c=(4, 2)) + RECURRENT
    net = make_net(text + 'layer { name: "bn" type: "BatchNorm" bottom: "h" top: "y" }')
    random = np.random.default_rng(3)

    def forward() -> tuple[list[LayerState], list[list[float]]]:
        for name in ("x", "c"):
            net.blobs[name].data[...] = random.standard_normal(net.blobs[name].shape)
        for blob in net.params["rnn"]:
            blob.data[...] = 0.5
        net.forward()
        return moved()

    def moved() -> tuple[list[LayerState], list[list[float]]]:
        return take_states(net), [blob.data.tolist() for blob in net.params["bn"]]

    before = forward()
    with states_put_back(net):
        inside = forward()
    assert before[0] != inside[0]
    assert before[1] != inside[1]
    assert moved() == before


def test_states_that_do_not_fit_are_told_in_the_layer_s_name() -> None:
    net = make(("a", "1"))
    with pytest.raises(
        UserError, match=r'^net.prototxt:\d+: layer "rnn": carried state must be a multiple of 8 bytes'
    ):
        give_states(net, [("rnn", b"123")])
    with pytest.raises(
        UserError, match=r'^net.prototxt:\d+: layer "a": Kept.set_state raised UnicodeDecodeError'
    ):
        give_states(net, [("a", b"\xff")])
    net.layers[-1].users_layer.kept = "ü"  # type: ignore[attr-defined]
    with pytest.raises(
        UserError, match=r'^net.prototxt:\d+: layer "a": Kept.get_state raised UnicodeEncodeError'
    ):
        take_states(net)
