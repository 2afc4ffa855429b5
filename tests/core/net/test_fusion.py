from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary, UserError
from dtrain.core.graph.gradient_flow import Needs
from dtrain.core.layers.layer import FusedLayers, Layer
from dtrain.core.net.fusion import find_groups
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.net.net import Net
from dtrain.proto import caffe_pb2
from tests.core.net_builder import inputs, make_net

NORM = 'layer { name: "norm" type: "BatchNorm" bottom: "y" top: "y" }'
SCALE = """layer { name: "scale" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true
    filler { type: "gaussian" mean: 1 std: 0.5 } bias_filler { type: "gaussian" std: 0.5 } } }"""
TANH = 'layer { name: "tanh" type: "TanH" bottom: "y" top: "y" }'
APART = (
    NORM.replace('top: "y"', 'top: "n"'),
    SCALE.replace('bottom: "y"', 'bottom: "n"').replace('top: "y"', 'top: "s"'),
)


def text(*middle: str, last: str = "y") -> str:
    """Return a net of a convolution, `middle` and a loss."""
    return (
        inputs(x=(4, 3, 6, 5), t=(4, 16, 6, 5))
        + """layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 16
            kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.3 } } }"""
        + "".join(middle)
        + f'layer {{ name: "relu" type: "ReLU" bottom: "{last}" top: "{last}" }}'
        + f'layer {{ name: "loss" type: "EuclideanLoss" bottom: "{last}" bottom: "t" top: "loss" }}'
    )


class Link(FusedLayers):
    """Stands for a layer, or for several in a row; it takes those in whose letter is in `takes`."""

    def __init__(self, name: str, takes: str) -> None:
        self.name, self.takes = name, takes

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Not called."""

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Not called."""

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return both in a row, with the place at which they meet."""
        other = cast(Link, behind)
        return Link(f"{self.name}{place}{other.name}", self.takes) if other.name in self.takes else None


def groups_of(
    *layers: tuple[str, str, str], takes: str = "bcd", loss: str = "", alone: str = "", frozen: str = ""
) -> dict[str, tuple[str, list[str]]]:
    """Return for each layer in a group what the group is made of, and what it reads from outside.

    layers: (letter of the layer, letters of bottoms, of tops). loss: tops with a loss weight. alone, frozen: layers
    whose backward does not run, and among these those that learn nothing.
    """
    names, bottoms, tops = zip(*layers, strict=True)
    found = find_groups(
        [cast(Layer, Link(name, takes)) for name in names],
        bottoms,
        tops,
        [[float(top in loss) for top in own] for own in tops],
        [Needs(name not in alone, [name not in alone], [name not in frozen]) for name in names],
    )
    assert all(found[i] is found[group.first] for i, group in found.items())
    return {
        names[i]: (cast(Link, group.layers).name, [bottoms[k][place] for k, place in group.bottoms])
        for i, group in found.items()
    }


def test_find_groups_goes_on_as_long_as_the_next_layer_can_be_taken_in() -> None:
    chain = [("a", "x", "1"), ("b", "1", "2"), ("c", "2", "3"), ("d", "3", "4"), ("e", "4", "5")]
    assert groups_of(*chain) == dict.fromkeys("abcd", ("a0b0c0d", ["x"]))
    assert groups_of(*chain, takes="bd") == dict.fromkeys("ab", ("a0b", ["x"])) | dict.fromkeys(
        "cd", ("c0d", ["2"])
    )
    assert groups_of(*chain, takes="") == {}


def test_find_groups_in_place_are_found_as_well() -> None:
    assert groups_of(("a", "x", "y"), ("b", "y", "y"), ("c", "y", "y"), ("e", "y", "z")) == dict.fromkeys(
        "abc", ("a0b0c", ["x"])
    )
    # The last one of those in place is read by another; the first ones are hidden all the same.
    assert groups_of(("a", "x", "y"), ("b", "y", "y"), ("c", "y", "z"), ("d", "z", "w")) == dict.fromkeys(
        "abcd", ("a0b0c0d", ["x"])
    )


def test_find_groups_with_other_bottoms_names_them_in_order() -> None:
    layers = [("e", "x", "s"), ("a", "x", "1"), ("b", "s1t", "2"), ("c", "2u", "3")]
    assert groups_of(*layers) == dict.fromkeys("abc", ("a1b0c", ["x", "s", "t", "u"]))


@pytest.mark.parametrize(
    "layers",
    [
        [("a", "x", "1"), ("b", "1", "2"), ("e", "1", "3")],
        [("a", "x", "1"), ("b", "11", "2")],
        [("a", "x", "12"), ("b", "1", "3")],
        [("a", "x", "1"), ("e", "y", "2"), ("b", "1", "3")],
        [("a", "x", "1"), ("b", "y", "2")],
    ],
    ids=["another reader", "read twice", "two tops", "another between them", "not what it reads"],
)
def test_find_groups_leaves_alone_what_does_not_follow_unseen(layers: list[tuple[str, str, str]]) -> None:
    assert groups_of(*layers) == {}


def test_find_groups_cuts_at_a_loss_and_where_a_layer_that_learns_gets_no_gradient() -> None:
    chain = [("a", "x", "1"), ("b", "1", "2"), ("c", "2", "3")]
    assert groups_of(*chain, loss="1") == dict.fromkeys("bc", ("b0c", ["1"]))
    assert groups_of(*chain, loss="3") == dict.fromkeys("abc", ("a0b0c", ["x"]))
    assert groups_of(*chain, alone="ab") == dict.fromkeys("ab", ("a0b", ["x"]))
    assert groups_of(*chain, alone="ab", frozen="ab") == dict.fromkeys("abc", ("a0b0c", ["x"]))


@pytest.fixture
def build() -> Callable[..., Net]:
    """Return what builds a net on the engine that fuses, with the same values each time."""
    try:
        engine = create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")

    def make(prototxt: str, phase: int = caffe_pb2.TRAIN) -> Net:
        net = make_net(prototxt, phase=phase, engine=engine)
        random = np.random.default_rng(5)
        for name in ("x", "t"):
            net.blobs[name].data[...] = random.standard_normal(net.blobs[name].shape)
        return net

    return make


def run(net: Net, num_passes: int = 3) -> dict[str, Any]:
    """Train a little and return what that leaves: losses, params, sums of gradients, running statistics."""
    net.clear_param_diffs()
    losses = []
    for _ in range(num_passes):
        losses.append(net.forward())
        net.backward()
        for param in net.learnable_params:
            values = param.blob.update_data()
            values -= 1e-3 * param.blob.read_diff()
    left = {"losses": np.array(losses)}
    for param in net.learnable_params:
        left[f"{param.layer_name} {param.title} data"] = param.blob.read_data().copy()
        left[f"{param.layer_name} {param.title} diff"] = param.blob.read_diff().copy()
    return left


def expect_same(fused: dict[str, Any], plain: dict[str, Any]) -> None:
    assert fused.keys() == plain.keys()
    for name, expected in plain.items():
        scale = max(1.0, np.abs(expected).max())
        # A bias below a BatchNorm has a gradient of 0 but for the rounding of sums of hundreds of values.
        np.testing.assert_allclose(fused[name], expected, rtol=0, atol=5e-5 * scale, err_msg=name)


def fused_names(net: Net) -> set[str]:
    return {net.layer_names[i] for i in net.groups}


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("phase", [caffe_pb2.TRAIN, caffe_pb2.TEST])
@pytest.mark.parametrize(
    ("middle", "last", "names"),
    [
        ((NORM, SCALE), "y", {"norm", "scale", "relu"}),
        (APART, "s", {"norm", "scale", "relu"}),
        ((NORM,), "y", {"norm", "relu"}),
        ((NORM, SCALE, TANH), "y", {"norm", "scale"}),
        ((NORM, SCALE.replace("bias_term", "axis: 1 bias_term")), "y", {"norm", "scale", "relu"}),
    ],
    ids=["in place", "apart", "no scale", "no relu", "axis"],
)
def test_fused_net_gives_what_layers_one_by_one_give(
    build: Callable[..., Net], middle: tuple[str, ...], last: str, names: set[str], phase: int, shares: bool
) -> None:
    plain, fused = (build(text(*middle, last=last), phase) for _ in range(2))
    fused.fuse()
    assert fused_names(fused) == names
    for net in (plain, fused):
        for blob, value in zip(net.params["norm"], (0.5, 2.0, 1.0), strict=True):
            blob.data[...] = value
    if shares and phase == caffe_pb2.TRAIN:  # else nothing is left to run backward on
        share_memory([fused])
    expect_same(run(fused), run(plain))


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("where", ["x", "scale", "conv"])
def test_number_that_is_none_reaches_the_loss(build: Callable[..., Net], fuses: bool, where: str) -> None:
    net = build(text(NORM, SCALE))
    if fuses:
        net.fuse()
    blob = net.blobs["x"] if where == "x" else net.params[where][0]
    assert np.isfinite(net.forward())
    blob.data.reshape(-1)[3] = np.nan
    assert np.isnan(net.forward())
    net.backward()
    assert np.isnan(net.params["conv"][0].read_diff()).any()


def test_fused_net_in_bf16_gives_what_layers_one_by_one_give_but_for_rounding() -> None:
    try:
        engine = create_engine("onednn", "BF16")
    except (MissingLibrary, UserError):
        pytest.skip("no oneDNN, or a CPU without bf16")
    nets = [make_net(text(NORM, SCALE), engine=engine) for _ in range(2)]
    nets[1].fuse()
    random = np.random.default_rng(5)
    values = {name: random.standard_normal(nets[0].blobs[name].shape) for name in ("x", "t")}
    for net in nets:
        for name, value in values.items():
            net.blobs[name].data[...] = value
    plain, fused = (run(net) for net in nets)
    for (
        name,
        expected,
    ) in plain.items():  # bf16 has 8 bits; one by one, layers round three times, near 0 to any side
        scale = max(1.0, float(np.linalg.norm(expected)))
        assert np.linalg.norm(fused[name] - expected) < 0.05 * scale, name
    for net in nets:
        net.params["scale"][0].data[3] = np.nan
        assert np.isnan(net.forward())


def test_fused_net_in_tests_lets_a_number_that_is_none_reach_the_loss(build: Callable[..., Net]) -> None:
    net = build(text(NORM, SCALE), caffe_pb2.TEST)
    net.fuse()
    for blob, value in zip(net.params["norm"], (0.5, 2.0, 1.0), strict=True):
        blob.data[...] = value
    net.params["conv"][0].data[0, 0, 0, 0] = np.nan  # statistics are good, what they are used on is not
    assert np.isnan(net.forward())


def test_fused_net_that_is_reshaped_gives_what_layers_one_by_one_give(build: Callable[..., Net]) -> None:
    plain, fused = (build(text(NORM, SCALE)) for _ in range(2))
    fused.fuse()
    for net in (plain, fused):
        net.forward()
        for name in ("x", "t"):
            blob = net.blobs[name]
            values = blob.data[:2].copy()
            blob.reshape(2, *blob.shape[1:])
            blob.data[...] = values
        net.reshape()
    expect_same(run(fused), run(plain))


def test_gradients_of_fused_layers_are_there_when_the_last_ones_turn_is_over(
    build: Callable[..., Net],
) -> None:
    net = build(text(NORM, SCALE))
    net.fuse()
    seen: dict[str, float] = {}
    net.callbacks.after_backward.append(
        lambda i: seen.update({net.layer_names[i]: float(np.abs(net.params["scale"][0].read_diff()).max())})
    )
    run(net, 1)
    assert seen["loss"] == 0
    assert seen["relu"] > 0


@pytest.mark.parametrize(
    ("prototxt", "why"),
    [
        (text(NORM, SCALE.replace("bias_term", "axis: 0 bias_term")), "a factor an item, not a channel"),
        (text(NORM, SCALE.replace("bias_term", "num_axes: 2 bias_term")), "several axes"),
        (
            text(NORM, 'layer { name: "sigmoid" type: "Sigmoid" bottom: "y" top: "y" }', SCALE),
            "something between them",
        ),
        (
            text(*APART, last="s") + 'layer { name: "look" type: "Silence" bottom: "n" }',
            "another reader of what lies between them",
        ),
        (text(APART[0].replace("}", "loss_weight: 1 }", 1), APART[1], last="s"), "a loss between them"),
    ],
)
def test_layers_that_must_run_by_themselves_are_not_fused(
    build: Callable[..., Net], prototxt: str, why: str
) -> None:
    net = build(prototxt)
    net.fuse()
    assert "scale" not in fused_names(net), why


def test_engine_without_fused_operations_runs_each_layer() -> None:
    net = make_net(text(NORM, SCALE), engine=create_engine("reference"))
    net.fuse()
    assert not net.groups
