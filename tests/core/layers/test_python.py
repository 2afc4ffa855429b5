"""Python layers: what pycaffe's own tests of them cover, and what users' code is told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.core.caffe_state import STATE
from dtrain.core.errors import UserError
from dtrain.core.layers.python import Python
from dtrain.core.net.net import Net
from dtrain.data.sampler import Shard
from tests.core.conftest import WriteModule
from tests.core.net_builder import TEST, TRAIN, inputs, make_net

SIMPLE = """
import caffe
import numpy as np

class Tenfold(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str or 10)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff

class OldSpelling(Tenfold):
    def setup(self, bottom, top):
        self.factor = eval(self.param_str_)['factor']

class Counter(caffe.Layer):
    def setup(self, bottom, top):
        top[0].reshape(4)
        self.restart()
    def restart(self):
        self.next = 0
    def reshape(self, bottom, top):
        pass
    def forward(self, bottom, top):
        top[0].data[...] = (self.next + np.arange(4)) % 6
        self.next = (self.next + 4) % 6

class ReshapeCounter(caffe.Layer):
    '''Loads its data in reshape, as layers for segmentation do.'''
    def setup(self, bottom, top):
        self.num_reshapes = 0
    def reshape(self, bottom, top):
        self.num_reshapes += 1
        top[0].reshape(self.num_reshapes)
    def forward(self, bottom, top):
        top[0].data[...] = self.num_reshapes

class PhaseTop(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape()
    def forward(self, bottom, top): top[0].data[()] = self.phase

class Offset(caffe.Layer):
    '''Adds a learned number; a loss too, as its second top is the sum.'''
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 0.5
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        top[1].reshape(1)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data + self.blobs[0].data[0]
        top[1].data[0] = top[0].data.sum()
    def backward(self, top, propagate_down, bottom):
        self.propagated = list(propagate_down)
        gradient = top[0].diff + top[1].diff[0]
        self.blobs[0].diff[0] += gradient.sum()
        if propagate_down[0]:
            bottom[0].diff[...] = gradient

class Failing(Tenfold):
    def setup(self, bottom, top):
        if self.param_str == 'setup': raise RuntimeError('in setup')
        self.factor = 1
    def reshape(self, bottom, top):
        if self.param_str == 'reshape': top[0].reshape(1.5)
        Tenfold.reshape(self, bottom, top)
    def forward(self, bottom, top):
        if self.param_str == 'forward': next(iter([]))
    def backward(self, top, propagate_down, bottom):
        if self.param_str == 'backward': bottom[0].diff[...] = np.zeros(99)

class Kept(Counter):
    def get_state(self): return str(self.next).encode() if self.param_str != 'text' else str(self.next)
    def set_state(self, state): self.next = int(state)

class HalfKept(Counter):
    def get_state(self): return b''
"""


@pytest.fixture(autouse=True)
def _simple_layers(write_module: WriteModule) -> None:
    write_module("simple_layers", SIMPLE)


def python(
    layer: str,
    name: str,
    bottoms: Sequence[str] = (),
    tops: Sequence[str] = (),
    param_str: str = "",
    more: str = "",
) -> str:
    """Return the prototxt of a Python layer of simple_layers."""
    names = " ".join([*(f'bottom: "{each}"' for each in bottoms), *(f'top: "{each}"' for each in tops)])
    return (
        f'layer {{ name: "{name}" type: "Python" {names} {more} python_param {{ module: "simple_layers" '
        f'layer: "{layer}" param_str: "{param_str}" }} }}\n'
    )


def chain(*layers: str, param_strs: Sequence[str] = ("", "", "")) -> str:
    """Return three layers in a row on an input x of shape (2, 3)."""
    blobs = ["x", "one", "two", "three"]
    text = "force_backward: true\n" + inputs(x=(2, 3))
    for i, (layer, param_str) in enumerate(zip(layers, param_strs, strict=True)):
        text += python(layer, blobs[i + 1], blobs[i : i + 1], blobs[i + 1 : i + 2], param_str)
    return text


def users_layer(net: Net, name: str) -> Any:
    """Return the user's object behind a layer."""
    layer = net.layers[net.layer_names.index(name)]
    assert isinstance(layer, Python)
    return layer.users_layer


def test_python_layers_compute_forward_and_backward() -> None:
    net = make_net(chain("Tenfold", "Tenfold", "Tenfold"))
    net.blobs["x"].data[...] = 8
    net.forward()
    assert np.all(net.blobs["three"].data == 8000)
    net.blobs["three"].diff[...] = 7
    net.backward()
    assert np.all(net.blobs["x"].diff == 7000)


def test_python_layers_can_not_be_captured() -> None:
    assert make_net(chain("Tenfold", "Tenfold", "Tenfold")).layers[1].needs_host == "runs its user's code"


@pytest.mark.parametrize("layer", ["Tenfold", "OldSpelling"])
def test_python_layer_reads_its_param_str_by_both_names(layer: str) -> None:
    texts = {"Tenfold": ("2", "3", "5"), "OldSpelling": ("{'factor': 2}", "{'factor': 3}", "{'factor': 5}")}
    net = make_net(chain(layer, layer, layer, param_strs=texts[layer]))
    net.blobs["x"].data[...] = 1
    net.forward()
    assert [net.blobs[name].data[0, 0] for name in ("one", "two", "three")] == [2, 6, 30]


def test_python_layers_follow_a_reshaped_input() -> None:
    net = make_net(chain("Tenfold", "Tenfold", "Tenfold"))
    net.blobs["x"].reshape(4, 4, 4, 4)
    net.forward()
    assert {blob.shape for blob in net.blobs.values()} == {(4, 4, 4, 4)}


def test_python_data_layer_yields_its_batches_and_starts_anew_when_told() -> None:
    net = make_net(python("Counter", "numbers", tops=["numbers"]))
    batches = []
    for _ in range(3):
        net.forward()
        batches.append(net.blobs["numbers"].data.tolist())
    assert batches == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]
    users_layer(net, "numbers").restart()
    net.forward()
    assert net.blobs["numbers"].data.tolist() == [0, 1, 2, 3]


def test_python_layer_is_reshaped_before_each_forward() -> None:
    """And what reads its top is too."""
    net = make_net(python("ReshapeCounter", "numbers", tops=["n"]) + python("Tenfold", "ten", ["n"], ["t"]))
    for num_reshapes in (2, 3, 4):  # the first is part of setting up
        net.forward()
        assert net.blobs["t"].data.tolist() == [10.0 * num_reshapes] * num_reshapes


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_python_layer_knows_its_phase(phase: int) -> None:
    net = make_net(python("PhaseTop", "phase", tops=["phase"]), phase)
    net.forward()
    assert float(net.blobs["phase"].data) == phase
    assert str(users_layer(net, "phase").phase) == ("TRAIN", "TEST")[phase]


OFFSET = inputs(x=(2, 3)) + python(
    "Offset", "offset", ["x"], ["y", "sum"], more="loss_weight: 0 loss_weight: 2"
)


def test_python_layer_with_a_param_and_a_loss_weight_learns() -> None:
    """y = x + b, loss = 2·Σy: the gradient of b is 2·count, and it adds up."""
    net = make_net(OFFSET)
    net.blobs["x"].data[...] = 1
    assert net.forward() == pytest.approx(2 * 6 * 1.5)
    assert [param.blob.shape for param in net.learnable_params] == [(1,)]
    for times in (1, 2):
        net.backward()
        assert net.params["offset"][0].diff.tolist() == [12 * times]
    assert users_layer(net, "offset").propagated == [False]


def test_python_layer_whose_bottom_needs_a_gradient_is_told_so() -> None:
    net = make_net("force_backward: true\n" + OFFSET)
    net.forward()
    net.backward()
    assert users_layer(net, "offset").propagated == [True]
    assert np.all(net.blobs["x"].diff == 2)


def test_python_layer_in_place_is_the_users_business() -> None:
    net = make_net(inputs(x=(2, 3)) + python("Tenfold", "ten", ["x"], ["x"]))
    net.blobs["x"].data[...] = 1
    net.forward()
    assert np.all(net.blobs["x"].data == 10)


def test_python_layer_without_backward_runs_where_no_gradient_is_needed() -> None:
    text = python("Counter", "n", tops=["n"]) + python(
        "Offset", "o", ["n"], ["y", "sum"], more="loss_weight: [0, 1]"
    )
    net = make_net(text)
    net.forward()
    net.backward()
    assert net.params["o"][0].diff.tolist() == [4]


def test_python_layer_without_backward_where_a_gradient_is_needed_says_so() -> None:
    text = (
        OFFSET.replace("loss_weight: 0 loss_weight: 2", "")
        + python("PhaseTop", "p", ["y"], ["p"], more="loss_weight: 1")
        + 'layer { name: "rest" type: "Silence" bottom: "sum" }'
    )
    net = make_net(text)
    net.forward()
    with pytest.raises(UserError) as caught:
        net.backward()
    assert str(caught.value).startswith(
        'net.prototxt:2: layer "p": class PhaseTop must define backward(self, '
    )


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("setup", "RuntimeError: in setup"),
        ("reshape", "UserError: a blob's shape must be whole numbers, 0 or more, got (1.5,)"),
        ("forward", "StopIteration"),
        ("backward", "ValueError: could not broadcast input array from shape (99,) into shape (2,3)"),
    ],
)
def test_python_layer_that_fails_is_named_with_the_line_and_its_traceback_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str, said: str
) -> None:
    def run() -> None:
        net = make_net(chain("Tenfold", "Failing", "Tenfold", param_strs=("", method, "")))
        net.forward()
        net.backward()

    with caplog.at_level(logging.ERROR), pytest.raises(UserError) as caught:
        run()
    file = tmp_path / "simple_layers.py"
    line = next(i for i, text in enumerate(SIMPLE.splitlines(), 1) if f"== '{method}'" in text)
    assert str(caught.value) == (
        f'net.prototxt:3: layer "two": Failing.{method} raised {said} ({file}:{line})'
    )
    assert type(caught.value.__cause__).__name__ == said.partition(":")[0]
    assert f'File "{file}", line {line}, in {method}' in caplog.text


def test_python_layer_of_an_unknown_class_is_one_sentence_with_the_layers_place() -> None:
    with pytest.raises(
        UserError, match=r'^net.prototxt:2: layer "one": module simple_layers .* has no class "Ten"'
    ):
        make_net(inputs(x=(1,)) + "\n" + python("Ten", "one", ["x"], ["y"]))


def test_python_layer_on_one_of_several_ranks_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STATE, "solver_count", None)
    monkeypatch.setattr(STATE, "solver_rank", 0)
    net = make_net(python("PhaseTop", "phase", tops=["phase"]))
    assert (STATE.solver_rank, STATE.solver_count) == (0, None)
    Python(net.graph.nodes[0].param, replace(net.context, shard=Shard(2, 5)))
    assert (STATE.solver_rank, STATE.solver_count) == (2, 5)


def test_python_layer_s_state_is_what_its_own_methods_say() -> None:
    net, other = (make_net(python("Kept", "kept", tops=["rows"])) for _ in range(2))
    net.forward()
    (layer,), (other_layer,) = net.layers, other.layers
    assert layer.get_state() == b"4"
    other_layer.set_state(b"4")
    other.forward()
    assert other.blobs["rows"].data.tolist() == [4, 5, 0, 1]
    assert layer.forgets == ""


@pytest.mark.parametrize("name", ["Counter", "HalfKept"])
def test_python_layer_without_both_methods_has_no_state_and_forgets(name: str) -> None:
    (layer,) = make_net(python(name, "counter", tops=["rows"])).layers
    assert layer.get_state() is None
    assert layer.forgets == "what its own code keeps (it has no get_state and set_state)"


def test_python_layer_s_state_that_is_no_bytes_or_raises_is_told() -> None:
    (layer,) = make_net(python("Kept", "kept", tops=["rows"], param_str="text")).layers
    with pytest.raises(UserError, match=r"^Kept.get_state must return bytes, got str$"):
        layer.get_state()
    with pytest.raises(
        UserError, match=r"^Kept.set_state raised ValueError: invalid literal.*simple_layers.py:\d+\)"
    ):
        layer.set_state(b"x")
