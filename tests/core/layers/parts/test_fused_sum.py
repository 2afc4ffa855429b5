from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.net.net import Net
from tests.core.net_builder import inputs, make_net

SHAPE = (3, 2, 4, 4)
SUM = 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "s" %s }'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "s" top: "s" %s }'
LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "s" bottom: "t" top: "loss" }'


def make(*layers: str, engine: str = "onednn") -> Net:
    """Return a net of `layers` and the inputs a, b and t, as far as it can fuse them."""
    try:
        made = create_engine(engine)
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    text = inputs(a=SHAPE, b=SHAPE, t=SHAPE) + "".join(layers) + "force_backward: true"
    net = make_net(text, engine=made)
    random = np.random.default_rng(4)
    for name in net.inputs:
        net.blobs[name].data[...] = random.standard_normal(SHAPE)
    net.fuse()
    return net


def test_forward_and_backward_are_those_of_a_sum_and_relu() -> None:
    net = make(SUM % "", RELU % "", LOSS)
    assert [net.layer_names[i] for i in sorted(net.groups)] == ["sum", "relu"]
    net.forward()
    net.backward()
    a, b, t = (net.blobs[name].data for name in "abt")
    y = np.maximum(a + b, 0)
    np.testing.assert_array_equal(net.blobs["s"].data, y)
    for name in "ab":
        expected = (y - t) / SHAPE[0] * (y > 0)
        np.testing.assert_allclose(net.blobs[name].diff, expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("wanted", [[False, True], [True, False], [False, False]])
def test_gradient_that_nobody_wants_is_not_computed(wanted: list[bool]) -> None:
    net = make(SUM % "", RELU % "", LOSS)
    net.forward()
    bottoms = [net.blobs["a"], net.blobs["b"]]
    net.blobs["s"].diff[...] = 1
    for blob in bottoms:
        blob.diff[...] = 7
    net.groups[3].layers.backward([net.blobs["s"]], wanted, bottoms)
    gradient = net.blobs["s"].data > 0
    for blob, is_wanted in zip(bottoms, wanted, strict=True):
        np.testing.assert_array_equal(blob.diff, gradient if is_wanted else 7)


def test_fused_sum_that_is_reshaped_follows() -> None:
    net = make(SUM % "", RELU % "", LOSS)
    net.forward()
    for name in net.inputs:
        net.blobs[name].reshape(5, 7)
        net.blobs[name].data[...] = 2
    net.reshape()
    net.forward()
    assert net.blobs["s"].shape == (5, 7)
    assert np.all(net.blobs["s"].data == 4)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ((SUM % "", RELU % "relu_param { negative_slope: 0.1 }", LOSS), "a slope"),
        ((SUM % "eltwise_param { coeff: 1 coeff: -1 }", RELU % "", LOSS), "a factor"),
        ((SUM % "eltwise_param { operation: MAX }", RELU % "", LOSS), "a maximum"),
        ((SUM % "", (RELU % "").replace("ReLU", "Sigmoid"), LOSS), "another function"),
    ],
)
def test_layers_that_must_run_by_themselves_are_not_fused(layers: tuple[str, ...], why: str) -> None:
    assert not make(*layers).groups, why


def test_engine_without_the_operation_runs_each_layer() -> None:
    assert not make(SUM % "", RELU % "", LOSS, engine="reference").groups
