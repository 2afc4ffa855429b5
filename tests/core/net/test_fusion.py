from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.onednn.library import MissingLibrary
from dtrain.core.net.net import Net
from dtrain.proto import caffe_pb2
from tests.core.net_builder import inputs, make_net

NORM = 'layer { name: "norm" type: "BatchNorm" bottom: "y" top: "y" }'
SCALE = """layer { name: "scale" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true
    filler { type: "gaussian" mean: 1 std: 0.5 } bias_filler { type: "gaussian" std: 0.5 } } }"""
APART = (
    NORM.replace('top: "y"', 'top: "n"'),
    SCALE.replace('bottom: "y"', 'bottom: "n"').replace('top: "y"', 'top: "s"'),
)


def text(*middle: str, last: str = "y") -> str:
    """Return a net of a convolution, `middle` and a loss."""
    return (
        inputs(x=(4, 3, 6, 5), t=(4, 8, 6, 5))
        + """layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 8
            kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.3 } } }"""
        + "".join(middle)
        + f'layer {{ name: "relu" type: "ReLU" bottom: "{last}" top: "{last}" }}'
        + f'layer {{ name: "loss" type: "EuclideanLoss" bottom: "{last}" bottom: "t" top: "loss" }}'
    )


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
    """Run passes and return what they leave: loss, sums of gradients, running statistics."""
    net.clear_param_diffs()
    losses = []
    for _ in range(num_passes):
        losses.append(net.forward())
        net.backward()
    left = {"losses": np.array(losses)}
    for param in net.learnable_params:
        left[f"{param.layer_name} {param.title} data"] = param.blob.read_data().copy()
        left[f"{param.layer_name} {param.title} diff"] = param.blob.read_diff().copy()
    return left


def expect_same(fused: dict[str, Any], plain: dict[str, Any]) -> None:
    assert fused.keys() == plain.keys()
    for name, expected in plain.items():
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(fused[name], expected, rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("phase", [caffe_pb2.TRAIN, caffe_pb2.TEST])
@pytest.mark.parametrize(("middle", "last"), [((NORM, SCALE), "y"), (APART, "s")], ids=["in place", "apart"])
def test_fused_net_gives_what_layers_one_by_one_give(
    build: Callable[..., Net], middle: tuple[str, str], last: str, phase: int
) -> None:
    plain, fused = (build(text(*middle, last=last), phase) for _ in range(2))
    fused.fuse()
    assert {fused.layer_names[i] for i in fused._pairs} == {"norm", "scale"}
    for net in (plain, fused):
        for blob, value in zip(net.params["norm"], (0.5, 2.0, 1.0), strict=True):
            blob.data[...] = value
    expect_same(run(fused), run(plain))


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


def test_gradients_of_fused_layers_are_there_when_the_second_ones_turn_is_over(
    build: Callable[..., Net],
) -> None:
    net = build(text(NORM, SCALE))
    net.fuse()
    seen: dict[str, float] = {}
    net.callbacks.after_backward.append(
        lambda i: seen.update({net.layer_names[i]: float(np.abs(net.params["scale"][0].read_diff()).max())})
    )
    run(net, 1)
    assert seen["relu"] == 0
    assert seen["scale"] > 0


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
    assert not net._pairs, why


def test_engine_without_fused_operations_runs_each_layer() -> None:
    net = make_net(text(NORM, SCALE), engine=create_engine("reference"))
    net.fuse()
    assert not net._pairs
