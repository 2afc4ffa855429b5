"""All steps together, in Caffe's order."""

from __future__ import annotations

import logging

import pytest

from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.graph.upgrade.net import STEPS
from tests.core.graph.upgrade.documents import RELU, message_of, net_of

OLDEST = """name: "oldest"
input: "data"
input_dim: [2, 3, 8, 8]
layers { layer { name: "images" type: "images" source: "list" batchsize: 4 cropsize: 8 } top: "i" top: "l" }
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "padded" }
layers {
  layer {
    name: "conv" type: "conv" kernelsize: 5 num_output: 6
    blobs_lr: 1
    blobs_lr: 2
    weight_decay: 3
  }
  bottom: "padded"
  top: "conv"
}
"""


def test_upgrade_net_of_the_oldest_form_goes_through_every_step(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        document = upgrade_net(net_of(OLDEST))
    assert document.message == message_of("""name: "oldest"
        layer { name: "input" type: "Input" top: "data" input_param { shape { dim: [2, 3, 8, 8] } } }
        layer { name: "images" type: "ImageData" top: "i" top: "l" transform_param { crop_size: 8 }
          image_data_param { source: "list" batch_size: 4 } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
          param { lr_mult: 1 decay_mult: 3 } param { lr_mult: 2 }
          convolution_param { num_output: 6 pad: 2 kernel_size: 5 } }""")
    assert caplog.messages == [
        "net.prototxt: layers of 2013 (V0) are read as layers of 2014",
        "net.prototxt: `layers` of 2014 (V1) are read as today's `layer`",
        "net.prototxt: the net-level input fields are read as an Input layer",
    ]
    lines = {
        ("layer", 0): 2,
        ("layer", 1, "transform_param", "crop_size"): 4,
        ("layer", 2): 6,
        ("layer", 2, "convolution_param", "kernel_size", 0): 8,
        ("layer", 2, "convolution_param", "pad"): 5,
        ("layer", 2, "param", 0, "lr_mult"): 9,
        ("layer", 2, "param", 1): 10,
        ("layer", 2, "param", 0, "decay_mult"): 11,
        ("layer", 2, "bottom"): 13,
        ("layer", 2, "top"): 14,
    }
    assert {path: document.line(*path) for path in lines} == lines


def test_upgrade_net_reports_each_kind_once_to_who_asks() -> None:
    told: list[str] = []
    text = 'layers { name: "d" type: DATA data_param { scale: 2 } top: "d" }\n' * 2
    upgrade_net(net_of(text), told.append)
    assert told == [
        "net.prototxt: scale, mean_file, crop_size and mirror are read as transform_param",
        "net.prototxt: `layers` of 2014 (V1) are read as today's `layer`",
    ]


def test_upgrade_net_of_today_changes_nothing() -> None:
    document = net_of(RELU)
    before = document.message.SerializeToString()
    assert upgrade_net(document) is document
    assert document.message.SerializeToString() == before


@pytest.mark.parametrize("text", [OLDEST, RELU, 'input: "x" input_shape { dim: 1 }'])
def test_upgrade_net_of_its_own_result_changes_nothing(text: str) -> None:
    upgraded = upgrade_net(net_of(text))
    assert [step.words for step in STEPS if step.is_needed(upgraded.message)] == []
    before = upgraded.message.SerializeToString(deterministic=True)
    assert upgrade_net(upgraded).message.SerializeToString(deterministic=True) == before
