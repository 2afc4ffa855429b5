"""Nets whose convolutions, inner products and sums run as one with what comes behind them, trained for some steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.net.net import Net
from tests.core.net_builder import TEST, TRAIN, inputs, make_net

CONVOLUTION = """layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{
    num_output: {num_output} kernel_size: 3 pad: 1 {more} weight_filler {{ type: "gaussian" std: 0.2 }}
    bias_filler {{ type: "gaussian" std: 0.1 }} }} }}"""
PRODUCT = """layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" inner_product_param {{
    num_output: 40 weight_filler {{ type: "gaussian" std: 0.1 }} bias_filler {{ type: "gaussian" std: 0.1 }} }} }}"""
IN_PLACE = 'layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }'
APART = 'layer { name: "relu" type: "ReLU" bottom: "a" top: "y" }'
SUM = 'layer { name: "sum" type: "Eltwise" bottom: "%s" bottom: "%s" top: "s" }'
RELU_OF_SUM = 'layer { name: "relu" type: "ReLU" bottom: "s" top: "s" }'
APART_FROM_SUM = 'layer { name: "relu" type: "ReLU" bottom: "s" top: "y" }'
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "%s" top: "%s" }'


def convolution(name: str, bottom: str = "first", num_output: int = 16, more: str = "") -> str:
    return CONVOLUTION.format(name=name, bottom=bottom, num_output=num_output, more=more)


def text(*middle: str, last: str) -> str:
    """Return a net of a convolution, `middle`, an inner product and a loss."""
    return (
        inputs(x=(4, 3, 7, 6), t=(4, 40))
        + convolution("first", "x")
        + 'layer { name: "sigmoid" type: "Sigmoid" bottom: "first" top: "first" }'
        + "".join(middle)
        + PRODUCT.format(name="last", bottom=last)
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "last" bottom: "t" top: "loss" }'
    )


BRANCHES = convolution("b"), convolution("a")
BETWEEN = 'layer { name: "tanh" type: "TanH" bottom: "a" top: "a" }'

# the net, and what of it runs as one
NETS = {
    "in place": (text(convolution("a"), IN_PLACE, last="a"), "a relu"),
    "apart": (text(convolution("a"), APART, last="y"), "a relu"),
    "grouped": (text(convolution("a", more="group: 4"), IN_PLACE, last="a"), "a relu"),
    "no blocks": (text(convolution("a", num_output=10), IN_PLACE, last="a"), "a relu"),
    "dropout behind": (text(convolution("a"), IN_PLACE, DROPOUT % ("a", "a"), last="a"), "a relu"),
    "product": (
        text(PRODUCT.format(name="a", bottom="first"), IN_PLACE, DROPOUT % ("a", "a"), last="a"),
        "a relu",
    ),
    "convolution and sum": (text(convolution("a"), SUM % ("first", "a"), last="s"), "a sum"),
    "convolution, sum and relu": (
        text(convolution("a"), SUM % ("a", "first"), RELU_OF_SUM, DROPOUT % ("s", "s"), last="s"),
        "a sum relu",
    ),
    "convolutions, sum and relu": (text(*BRANCHES, SUM % ("b", "a"), APART_FROM_SUM, last="y"), "a sum relu"),
    "convolution, sum with what learns nothing": (
        text(inputs(c=(4, 16, 7, 6)), convolution("a"), SUM % ("c", "a"), RELU_OF_SUM, last="s"),
        "a sum relu",
    ),
    "sum and relu": (text(*BRANCHES, BETWEEN, SUM % ("b", "a"), RELU_OF_SUM, last="s"), "sum relu"),
    "sum and relu apart": (text(*BRANCHES, BETWEEN, SUM % ("a", "b"), APART_FROM_SUM, last="y"), "sum relu"),
    "sum of what learns nothing": (
        text(inputs(c=(4, 16, 7, 6)), SUM % ("first", "c"), RELU_OF_SUM, last="s"),
        "sum relu",
    ),
}


def make(prototxt: str, phase: int = TRAIN, precision: str = "FLOAT32") -> Net:
    """Return the net on the engine that fuses, with the same values each time."""
    try:
        engine = create_engine("onednn", precision)
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    net = make_net(prototxt, phase=phase, engine=engine)
    random = np.random.default_rng(5)
    for name in net.inputs:
        net.blobs[name].write_data()[...] = random.standard_normal(net.blobs[name].shape)
    return net


def train(net: Net, num_iterations: int = 4) -> dict[str, Any]:
    """Return the losses of some steps down the gradient, and the params that they lead to."""
    losses = []
    for _ in range(num_iterations):
        net.clear_param_diffs()
        losses.append(net.forward())
        net.backward()
        for param in net.learnable_params:
            param.blob.update_data()[...] -= 0.001 * param.blob.read_diff()
    left = {f"{p.layer_name} {p.title}": p.blob.read_data().copy() for p in net.learnable_params}
    return {"losses": np.array(losses), **left}


def expect_close(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=0, atol=2e-5 * np.abs(value).max(), err_msg=key)


@pytest.mark.parametrize("name", NETS)
def test_training_of_fused_layers_leads_where_that_of_each_leads(name: str) -> None:
    prototxt, together = NETS[name]
    plain, fused = make(prototxt), make(prototxt)
    fused.fuse()
    assert " ".join(fused.layer_names[i] for i in sorted(fused.groups)) == together
    expected, actual = train(plain), train(fused)
    assert expected["losses"][-1] < expected["losses"][0]
    expect_close(actual, expected)


@pytest.mark.parametrize("name", NETS)
def test_test_net_of_fused_layers_gives_the_same_loss(name: str) -> None:
    plain, fused = (make(NETS[name][0], TEST) for _ in range(2))
    fused.fuse()
    assert fused.groups
    assert fused.forward() == pytest.approx(plain.forward(), rel=1e-6)


@pytest.mark.usefixtures("spoiled")
@pytest.mark.parametrize("name", NETS)
def test_fused_layers_whose_blobs_share_memory_give_the_same_bits(name: str) -> None:
    keeping, sharing = (make(NETS[name][0]) for _ in range(2))
    for net in (keeping, sharing):
        net.fuse()
    share_memory([sharing])
    expected, actual = train(keeping), train(sharing)
    assert np.isfinite(expected["losses"]).all()
    for key, value in expected.items():
        np.testing.assert_array_equal(actual[key], value, err_msg=key)


@pytest.mark.parametrize("name", NETS)
def test_fused_layers_let_a_loss_show_a_param_that_is_no_number(name: str) -> None:
    net = make(NETS[name][0])
    net.fuse()
    nearest = next(layer for layer in ("a", "b", "first") if layer in net.params)
    net.params[nearest][0].data.flat[3] = np.nan
    assert np.isnan(net.forward())


@pytest.mark.parametrize("name", NETS)
def test_fused_layers_in_bf16_train_as_each_does(name: str) -> None:
    """All goes through the same roundings, but for what is added, which is rounded once less."""
    prototxt, together = NETS[name]
    if not make(prototxt).context.engine.binding.library.has_bf16:
        pytest.skip("the CPU has no bf16")
    plain, fused = (make(prototxt, precision="BF16") for _ in range(2))
    fused.fuse()
    assert " ".join(fused.layer_names[i] for i in sorted(fused.groups)) == together
    np.testing.assert_allclose(train(fused)["losses"], train(plain)["losses"], rtol=1e-2)


def test_fused_layers_that_are_reshaped_give_what_each_gives() -> None:
    plain, fused = (make(NETS["convolution, sum and relu"][0]) for _ in range(2))
    fused.fuse()
    for net in (plain, fused):
        net.forward()
        for name in net.inputs:
            blob = net.blobs[name]
            values = blob.data[:2].copy()
            blob.reshape(2, *blob.shape[1:])
            blob.data[...] = values
        net.reshape()
    expect_close(train(fused), train(plain))
