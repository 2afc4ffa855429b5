"""Scaled gradients of a loss: those of all params are so many times as large, whatever layer gives the loss."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.net.loss_scaling import scale_gradients
from dtrain.core.net.net import Net
from dtrain.core.python_layers.base import Layer
from tests.core.net_builder import inputs, make_net

HEAD = (
    inputs(x=(4, 3), y=(4, 2), label=(4,))
    + """
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p"
      inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }"""
)
LOSSES = {
    "softmax": 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "p" bottom: "label" top: "l" loss_weight: 0.3 }',
    "smooth": 'layer { name: "l" type: "SmoothL1Loss" bottom: "p" bottom: "y" top: "l" loss_weight: 2 }',
    # given by layers of other kinds, without params and with, of one value and of many
    "reduction": 'layer { name: "l" type: "Reduction" bottom: "p" top: "l" loss_weight: 0.5 }',
    "inner product": """layer { name: "l" type: "InnerProduct" bottom: "p" top: "l" loss_weight: 1
      inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }""",
    # a loss that others read too
    "read": """layer { name: "l" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "l" }
      layer { name: "m" type: "Power" bottom: "l" top: "m" loss_weight: 0.5 power_param { power: 2 } }""",
    "split": """layer { name: "h" type: "Power" bottom: "p" top: "h" loss_weight: 0.5 }
      layer { name: "l" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "l" }""",
    "two": """layer { name: "l" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "l" }
      layer { name: "m" type: "HingeLoss" bottom: "p" bottom: "label" top: "m" loss_weight: 3 }""",
    "python": """layer { name: "l" type: "Python" bottom: "p" top: "l" loss_weight: 1
      python_param { module: "tests.core.net.test_loss_scaling" layer: "Heedless" } }""",
}


class Heedless(Layer):
    """A loss, Σ bottom², that never looks at its top's diff, as Caffe's own example does not."""

    def setup(self, bottom: object, top: object) -> None:
        """Nothing to take in."""

    def reshape(self, bottom: list, top: list) -> None:  # type: ignore[type-arg,override]
        """Make the top a scalar."""
        top[0].reshape()

    def forward(self, bottom: list, top: list) -> None:  # type: ignore[type-arg,override]
        """Compute the sum."""
        top[0].data[...] = (bottom[0].data ** 2).sum()

    def backward(self, top: list, propagate_down: list, bottom: list) -> None:  # type: ignore[type-arg,override]
        """Compute its gradient."""
        bottom[0].diff[...] = 2 * bottom[0].data


def gradients(net: Net, num_passes: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    for name in ("x", "y"):
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].shape)
    net.blobs["label"].data[...] = [0, 1, 1, 0]
    net.clear_param_diffs()
    for _ in range(num_passes):  # as iter_size does: diffs add up
        net.forward()
        net.backward()
    return [param.blob.diff.copy() for param in net.learnable_params]


@pytest.mark.parametrize("name", LOSSES)
def test_scale_gradients_multiplies_those_of_every_param(name: str) -> None:
    net = make_net(HEAD + LOSSES[name])
    expected = gradients(net)
    assert any(np.abs(diff).max() > 0 for diff in expected)
    scale = np.array([64], np.float32)
    scale_gradients(net, scale)
    for diff, unscaled in zip(gradients(net), expected, strict=True):
        np.testing.assert_array_equal(diff, 64 * unscaled)  # a power of two: the same bits
    scale[0] = 2
    for diff, unscaled in zip(gradients(net), expected, strict=True):
        np.testing.assert_array_equal(diff, 2 * unscaled)


def test_scale_gradients_leaves_the_loss_and_what_needs_no_gradient() -> None:
    frozen = HEAD.replace(
        'type: "InnerProduct"', 'type: "InnerProduct" param { lr_mult: 0 } param { lr_mult: 0 }'
    )
    for text, weight in ((HEAD, 0.3), (frozen, 0.3)):
        net = make_net(text + LOSSES["softmax"])
        scale_gradients(net, np.array([64], np.float32))
        before = net.forward()
        net.backward()
        assert net.forward() == before
        assert net.blobs["l"].diff == np.float32(weight)
