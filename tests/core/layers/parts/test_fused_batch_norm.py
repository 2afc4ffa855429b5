from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.net.net import Net
from tests.core.net_builder import inputs, make_net

SHAPE = (6, 3, 4, 5)


def make(
    fields: str = "bias_term: true", norm_fields: str = "", frozen: bool = False, has_relu: bool = False
) -> Net:
    """Return a net in which BatchNorm, Scale and, if asked for, ReLU run as one, with random values in its input."""
    try:
        engine = create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    rates = "param { lr_mult: 0 } param { lr_mult: 1 }" if frozen else ""
    net = make_net(
        inputs(x=SHAPE, t=SHAPE)
        + f"""layer {{ name: "norm" type: "BatchNorm" bottom: "x" top: "n" batch_norm_param {{ {norm_fields} }} }}
        layer {{ name: "scale" type: "Scale" bottom: "n" top: "y" {rates} scale_param {{ {fields} }} }}
        {'layer { name: "relu" type: "ReLU" bottom: "y" top: "z" }' if has_relu else ""}
        layer {{ name: "loss" type: "EuclideanLoss" bottom: "{"z" if has_relu else "y"}" bottom: "t" top: "loss" }}
        force_backward: {str(not frozen).lower()}""",
        engine=engine,
    )
    net.fuse()
    assert len(net.groups) == 2 + has_relu
    net.blobs["x"].data[...] = np.random.default_rng(2).standard_normal(SHAPE) * 3 + 1
    return net


def normalised(net: Net) -> np.ndarray:
    x = net.blobs["x"].data.astype(np.float64)
    return (x - x.mean(axis=(0, 2, 3), keepdims=True)) / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + 1e-5)


def test_forward_scales_and_shifts_what_is_normalised_and_keeps_running_sums() -> None:
    net = make()
    scale, shift = net.params["scale"]
    scale.data[...], shift.data[...] = (1, 2, -3), (0, 5, 1)
    net.forward()
    expected = normalised(net) * scale.data.reshape(1, 3, 1, 1) + shift.data.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(net.blobs["y"].data, expected, atol=1e-5)
    x, num_values = net.blobs["x"].data.astype(np.float64), SHAPE[0] * SHAPE[2] * SHAPE[3]
    mean, variance, factor = net.params["norm"]
    np.testing.assert_allclose(mean.data, x.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(
        variance.data, x.var(axis=(0, 2, 3)) * num_values / (num_values - 1), rtol=1e-5
    )
    assert factor.data.tolist() == [1]


def test_backward_adds_the_gradients_of_scale_and_shift() -> None:
    net = make()
    net.forward()
    net.backward()
    net.backward()
    dy = 2 * net.blobs["y"].diff.astype(np.float64)
    scale, shift = net.params["scale"]
    np.testing.assert_allclose(scale.diff, (dy * normalised(net)).sum(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(shift.diff, dy.sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_backward_with_given_statistics_divides_by_their_deviation() -> None:
    net = make(norm_fields="use_global_stats: true")
    for blob, value in zip(net.params["norm"], (0.5, 8, 2), strict=True):
        blob.data[...] = value
    net.params["scale"][0].data[...] = (1, 2, -3)
    net.forward()
    net.backward()
    expected = net.blobs["y"].diff * net.params["scale"][0].data.reshape(1, 3, 1, 1) / np.sqrt(4 + 1e-5)
    np.testing.assert_allclose(net.blobs["x"].diff, expected, rtol=1e-5)


def test_scale_that_does_not_learn_gets_no_gradient() -> None:
    net = make(frozen=True)
    net.forward()
    net.backward()
    scale, shift = net.params["scale"]
    assert not scale.read_diff().any()
    assert shift.read_diff().any()


def test_scale_without_shift_is_as_if_the_shift_were_zero() -> None:
    net = make(fields="bias_term: false")
    net.forward()
    np.testing.assert_allclose(net.blobs["y"].data, normalised(net), atol=1e-5)
    net.backward()
    assert len(net.params["scale"]) == 1
    assert net.params["scale"][0].diff.any()


def test_forward_with_relu_has_no_negative_values_and_backward_no_gradient_where_there_were_some() -> None:
    net = make(has_relu=True)
    scale, shift = net.params["scale"]
    scale.data[...], shift.data[...] = (1, 2, -3), (0, 5, 1)
    net.forward()
    scaled = normalised(net) * scale.data.reshape(1, 3, 1, 1) + shift.data.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(net.blobs["z"].data, np.maximum(scaled, 0), atol=1e-5)
    net.backward()
    dy = net.blobs["z"].diff.astype(np.float64) * (scaled > 0)
    np.testing.assert_allclose(scale.diff, (dy * normalised(net)).sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shift.diff, dy.sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layers",
    [
        'type: "ReLU" relu_param { negative_slope: 0.1 }',
        'type: "ReLU" loss_weight: 0.5',
        'type: "ReLU" } layer { name: "tanh" bottom: "y" top: "y" type: "TanH"',
    ],
    ids=["slope", "loss", "another sign behind it"],
)
def test_relu_of_which_more_than_a_sign_is_needed_runs_by_itself(layers: str) -> None:
    try:
        engine = create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    norm = """layer { name: "norm" type: "BatchNorm" bottom: "x" top: "y" }
        layer { name: "scale" type: "Scale" bottom: "y" top: "y" }"""
    net = make_net(
        f'{inputs(x=SHAPE)} {norm} layer {{ name: "relu" bottom: "y" top: "y" {layers} }}', engine=engine
    )
    net.fuse()
    assert {net.layer_names[i] for i in net.groups} == {"norm", "scale"}


def test_forward_after_let_go_gives_the_same_gradients() -> None:
    net = make(has_relu=True)
    net.forward()
    group = next(iter(net.groups.values()))
    group.layers.let_go()
    for blob in net.params["norm"]:
        blob.data[...] = 0
    net.forward()
    net.backward()
    again = make(has_relu=True)
    again.forward()
    again.backward()
    np.testing.assert_array_equal(net.params["scale"][0].diff, again.params["scale"][0].diff)
