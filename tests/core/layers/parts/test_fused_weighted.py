from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.net.net import Net
from tests.core.net_builder import inputs, make_net

SHAPE = (3, 2, 4, 4)
CONV = """layer { name: "conv" type: "Convolution" bottom: "x" top: "a" %s convolution_param { num_output: 2
    kernel_size: 1 weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } } }"""
SUM = 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "c" top: "s" %s }'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "%s" top: "y" %s }'
LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "%s" bottom: "t" top: "loss" }'


def make(*layers: str, engine: str = "onednn", more: str = "") -> Net:
    """Return a net of `layers` and the inputs x, c and t, as far as it can fuse them."""
    try:
        made = create_engine(engine)
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    net = make_net(inputs(x=SHAPE, c=SHAPE, t=SHAPE) + "".join(layers) + more, engine=made)
    random = np.random.default_rng(4)
    for name in net.inputs:
        net.blobs[name].data[...] = random.standard_normal(SHAPE)
    net.fuse()
    return net


@pytest.mark.parametrize("adds", [False, True])
def test_forward_and_backward_are_those_of_a_product_a_sum_and_relu(adds: bool) -> None:
    """The kernel is 1 by 1: y = max(W·x + b (+ c), 0) at each place."""
    between = (SUM % "", RELU % ("s", "")) if adds else (RELU % ("a", ""),)
    net = make(CONV % "", *between, LOSS % "y", more="force_backward: true")
    assert [net.layer_names[i] for i in sorted(net.groups)] == ["conv", *["sum"][:adds], "relu"]
    net.forward()
    net.backward()
    x, c, t = (net.blobs[name].data.astype(np.float64) for name in "xct")
    weight, bias = net.params["conv"]
    before = np.einsum("kc,nchw->nkhw", weight.data[:, :, 0, 0], x) + bias.data.reshape(1, 2, 1, 1) + c * adds
    dy = (np.maximum(before, 0) - t) / SHAPE[0] * (before > 0)
    np.testing.assert_allclose(net.blobs["y"].data, np.maximum(before, 0), atol=1e-6)
    gradients = {
        "x": np.einsum("kc,nkhw->nchw", weight.data[:, :, 0, 0], dy),
        "weight": np.einsum("nkhw,nchw->kc", dy, x)[:, :, None, None],
        "bias": dy.sum(axis=(0, 2, 3)),
    }
    for name, blob in (("x", net.blobs["x"]), ("weight", weight), ("bias", bias)):
        np.testing.assert_allclose(blob.diff, gradients[name], atol=1e-5, err_msg=name)
    if adds:
        np.testing.assert_allclose(net.blobs["c"].diff, dy, atol=1e-6)


def test_params_that_do_not_learn_get_no_gradient() -> None:
    net = make(CONV % "param { lr_mult: 0 }", RELU % ("a", ""), LOSS % "y")
    assert net.groups
    net.forward()
    net.backward()
    weight, bias = net.params["conv"]
    assert not weight.read_diff().any()
    assert bias.read_diff().any()


def test_net_for_tests_that_learns_nothing_runs_fused_layers() -> None:
    net = make(CONV % "param { lr_mult: 0 } param { lr_mult: 0 }", SUM % "", RELU % ("s", ""), LOSS % "y")
    assert len(net.groups) == 3
    net.forward()
    net.backward()
    assert not any(param.blob.read_diff().any() for param in net.learnable_params)


TWICE = CONV.replace('bottom: "x" top: "a"', 'bottom: "x" bottom: "c" top: "a" top: "b"')


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ((CONV % "", RELU % ("a", "relu_param { negative_slope: 0.1 }"), LOSS % "y"), "a slope"),
        ((CONV % "", RELU % ("a", "loss_weight: 1")), "a diff that is written once and must stay"),
        (
            (
                CONV % "",
                RELU % ("a", ""),
                'layer { name: "tanh" type: "TanH" bottom: "y" top: "y" }',
                LOSS % "y",
            ),
            "the top, which tells where x is above 0, is written over",
        ),
        ((CONV % "", (RELU % ("a", "")).replace("ReLU", "Sigmoid"), LOSS % "y"), "another function"),
        ((CONV % "", SUM % "eltwise_param { coeff: 1 coeff: -1 }", LOSS % "s"), "a factor"),
        ((CONV % "", SUM % "eltwise_param { operation: PROD }", LOSS % "s"), "a product"),
        (
            (CONV % "", SUM.replace('bottom: "c"', 'bottom: "c" bottom: "t"') % "", LOSS % "s"),
            "a sum of three",
        ),
        (
            (TWICE % "", RELU % ("a", ""), LOSS % "y", 'layer { name: "s" type: "Silence" bottom: "b" }'),
            "two tops",
        ),
    ],
)
def test_layers_that_must_run_by_themselves_are_not_fused(layers: tuple[str, ...], why: str) -> None:
    assert not make(*layers).groups, why


def test_inner_product_is_not_fused_with_a_sum() -> None:
    product = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4
        axis: -1 weight_filler { type: "gaussian" std: 1 } } }"""
    assert not make(product, SUM % "", LOSS % "s").groups


def test_engine_without_the_operation_runs_each_layer() -> None:
    assert not make(CONV % "", SUM % "", RELU % ("s", ""), LOSS % "y", engine="reference").groups
