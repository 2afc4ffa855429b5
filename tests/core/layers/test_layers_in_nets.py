"""Rules of layers that show only in a net: sizes that change in forward, gradients that are 0 by nature."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from tests.core.net_builder import inputs, make_net

GAUSSIAN = 'weight_filler { type: "gaussian" std: 0.5 }'
SUM_OF_SQUARES = (
    'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 '
    "reduction_param { operation: SUMSQ } }"
)


def inner_product(name: str, bottom: str, top: str, num_output: int = 3) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" '
        f"inner_product_param {{ num_output: {num_output} {GAUSSIAN} }} }}"
    )


def convolution(name: str, bottom: str, top: str, num_output: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{top}" convolution_param '
        f"{{ num_output: {num_output} kernel_size: 3 pad: 1 {GAUSSIAN} }} }}"
    )


def assert_gradient(net: Net, layer: str) -> None:
    """Compare the slope of the loss along a random direction of a layer's weight with a central difference."""
    weight = net.params[layer][0]
    net.forward()
    net.clear_param_diffs()
    net.backward()
    start = weight.data.copy()
    direction = np.random.default_rng(3).standard_normal(weight.shape).astype(np.float32)
    slope, step, losses = float((weight.diff * direction).sum()), 1e-3, []
    for sign in (1, -1):
        weight.data[...] = start + sign * step * direction
        losses.append(net.forward())
    weight.data[...] = start
    assert slope != 0
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=5e-3)


def make_filtering_net(propagate_down: str) -> Net:
    text = inputs(x=(4, 2), label=(4,), selector=(4,)) + inner_product("first", "x", "h")
    text += (
        'layer { name: "f" type: "Filter" bottom: "h" bottom: "label" bottom: "selector" top: "g" top: "l" }'
    )
    text += inner_product("second", "g", "y")
    text += f'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "l" top: "loss" {propagate_down} }}'
    net = make_net(text)
    net.blobs["x"].data[...] = np.random.default_rng(0).standard_normal((4, 2))
    net.blobs["label"].data[...] = [0, 1, 2, 1]
    return net


def test_filter_gives_the_layers_behind_it_their_sizes() -> None:
    net = make_filtering_net("propagate_down: true propagate_down: false")
    for selector in ([1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]):
        net.blobs["selector"].data[...] = selector
        for layer in ("first", "second"):
            assert_gradient(net, layer)
        assert net.blobs["y"].shape == (sum(selector), 3)


def test_filter_that_selects_nothing_gives_no_loss_and_no_gradient() -> None:
    net = make_filtering_net("propagate_down: true propagate_down: false")
    assert net.forward() == 0
    net.clear_param_diffs()
    net.backward()
    assert net.blobs["y"].shape == (0, 3)
    assert not any(np.any(blob.diff) for blobs in net.params.values() for blob in blobs)


def test_filtered_label_without_propagate_down_is_refused_as_by_caffe() -> None:
    with pytest.raises(
        UserError, match="can't get a gradient from SoftmaxWithLoss.* set propagate_down: false"
    ):
        make_filtering_net("")


def test_crop_to_a_blob_that_is_learned_gives_that_blob_no_gradient_of_its_own() -> None:
    """As in FCN: an enlarged map is cropped to a finer one, which it is then added to."""
    text = inputs(x=(1, 2, 6, 6)) + convolution("fine", "x", "a", 2)
    text += (
        'layer { name: "up" type: "Deconvolution" bottom: "a" top: "b" convolution_param '
        f"{{ num_output: 2 group: 2 kernel_size: 4 stride: 2 bias_term: false {GAUSSIAN} }} }}"
        'layer { name: "crop" type: "Crop" bottom: "b" bottom: "a" top: "c" crop_param { offset: 3 } }'
        'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "c" top: "y" }'
    )
    net = make_net(text + SUM_OF_SQUARES)
    net.blobs["x"].data[...] = np.random.default_rng(0).standard_normal((1, 2, 6, 6))
    for layer in ("fine", "up"):
        assert_gradient(net, layer)


def test_upsample_by_the_mask_of_a_pooling_that_learns_needs_no_propagate_down() -> None:
    """As in SegNet, whose files say nothing of the mask's gradient."""
    text = inputs(x=(1, 2, 6, 6)) + convolution("encoder", "x", "a", 2)
    text += (
        'layer { name: "pool" type: "Pooling" bottom: "a" top: "b" top: "mask" '
        "pooling_param { kernel_size: 2 stride: 2 } }"
    )
    text += convolution("middle", "b", "c", 2)
    text += 'layer { name: "up" type: "Upsample" bottom: "c" bottom: "mask" top: "d" upsample_param { scale: 2 } }'
    net = make_net(text + convolution("decoder", "d", "y", 1) + SUM_OF_SQUARES)
    net.blobs["x"].data[...] = np.random.default_rng(0).standard_normal((1, 2, 6, 6))
    for layer in ("encoder", "middle", "decoder"):
        assert_gradient(net, layer)


def test_parameter_adds_up_the_gradients_of_several_passes() -> None:
    """The loss is Σ(p + x)²: each pass with its own x adds 2(p + x)."""
    text = inputs(x=(3,)) + (
        'layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 3 } } }'
        'layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "p" top: "y" }'
    )
    net = make_net(text + SUM_OF_SQUARES)
    net.params["p"][0].data[...] = [1, 2, 3]
    for x in (1, 10):
        net.blobs["x"].data[...] = x
        net.forward()
        net.backward()
    np.testing.assert_allclose(net.params["p"][0].diff, 2 * (2 * np.array([1, 2, 3]) + 11))


VIEWS = (
    'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 dim: 2 } }',
    'type: "Flatten" flatten_param { axis: 0 }',
    'type: "Concat"',
    'type: "Slice"',
    'type: "Split"',
)


@pytest.mark.parametrize("view", VIEWS)
def test_view_that_is_overwritten_in_place_leaves_what_it_shows(view: str) -> None:
    """TanH's gradient needs its top, and Power reads it; in Caffe the Exp in place changes it for both."""
    text = inputs(x=(2, 3)) + inner_product("ip", "x", "h", 4)
    text += 'layer { name: "shown" type: "TanH" bottom: "h" top: "g" }'
    text += f'layer {{ name: "view" {view} bottom: "g" top: "v" }}'
    text += 'layer { name: "over" type: "Exp" bottom: "v" top: "v" }'
    text += 'layer { name: "other" type: "Power" bottom: "g" top: "w" power_param { power: 3 } }'
    text += 'layer { name: "flat" type: "Reshape" bottom: "v" top: "f" reshape_param { shape { dim: 2 dim: 4 } } }'
    net = make_net(
        text + 'layer { name: "sum" type: "Eltwise" bottom: "f" bottom: "w" top: "y" }' + SUM_OF_SQUARES
    )
    net.blobs["x"].data[...] = np.random.default_rng(0).standard_normal((2, 3))
    assert_gradient(net, "ip")
    shown = np.tanh(net.blobs["h"].data)
    np.testing.assert_allclose(net.blobs["w"].data, shown**3, rtol=1e-5)
    np.testing.assert_allclose(net.blobs["f"].data, np.exp(shown), rtol=1e-5)


def test_parameter_that_is_overwritten_in_place_keeps_its_values() -> None:
    text = 'layer { name: "p" type: "Parameter" top: "y" parameter_param { shape { dim: 3 } } }'
    net = make_net(text + 'layer { name: "over" type: "TanH" bottom: "y" top: "y" }' + SUM_OF_SQUARES)
    net.params["p"][0].data[...] = [0.5, -1, 2]
    assert_gradient(net, "p")
    assert net.params["p"][0].data.tolist() == [0.5, -1, 2]
