"""Old transformation fields move to transform_param."""

from __future__ import annotations

import logging

import pytest

from dtrain.core.graph.upgrade.transforms import TRANSFORMS, warn_of_ignored
from tests.core.graph.upgrade.documents import message_of, net_of

TYPES = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
OLD = 'scale: 0.5 mean_file: "m" crop_size: 8 mirror: true'


@pytest.mark.parametrize(("type", "message"), TYPES.items())
def test_transforms_of_every_data_layer_are_moved(type: str, message: str) -> None:
    old = net_of(f'layers {{ name: "d" type: {type} {message} {{ source: "s" {OLD} }} }}')
    assert TRANSFORMS.is_needed(old.message)
    new = TRANSFORMS.apply(old).message
    expected = f'layers {{ name: "d" type: {type} {message} {{ source: "s" }} transform_param {{ {OLD} }} }}'
    assert new == message_of(expected)
    assert not TRANSFORMS.is_needed(new)


def test_transforms_keep_what_transform_param_had_and_the_lines_of_what_is_moved() -> None:
    text = """layers { name: "d" type: DATA
      transform_param { mean_value: 3 crop_size: 4 }
      data_param {
        batch_size: 2
        crop_size: 8 } }"""
    document = TRANSFORMS.apply(net_of(text))
    assert document.message == message_of(
        'layers { name: "d" type: DATA transform_param { mean_value: 3 crop_size: 8 } data_param { batch_size: 2 } }'
    )
    assert document.line("layers", 0, "data_param", "batch_size") == 4
    assert document.line("layers", 0, "transform_param", "mean_value", 0) == 2
    assert ("layers", 0, "data_param", "crop_size") not in document.lines


@pytest.mark.parametrize(
    "text",
    [
        'layers { name: "d" type: DATA data_param { source: "s" } transform_param { scale: 2 } }',
        'layers { name: "d" type: RELU data_param { scale: 2 } }',
        'layers { name: "d" type: IMAGE_DATA data_param { scale: 2 } }',
        'layer { name: "d" type: "Data" data_param { scale: 2 } }',
    ],
)
def test_transforms_are_not_needed_elsewhere(text: str) -> None:
    assert not TRANSFORMS.is_needed(message_of(text))


def test_warn_of_ignored_names_each_field_that_caffe_passes_over(caplog: pytest.LogCaptureFixture) -> None:
    text = f"""layer {{ name: "d" type: "Data"
      data_param {{ {OLD} }} }}
      layer {{ name: "i" type: "ImageData" image_data_param {{ mirror: true }} }}
      layer {{ name: "w" type: "WindowData" window_data_param {{ scale: 2 crop_size: 8 }} }}
      layer {{ name: "r" type: "ReLU" data_param {{ scale: 2 }} }}
      layer {{ name: "e" type: "Data" data_param {{ source: "s" }} }}"""
    document = net_of(text)
    warn_of_ignored(document)
    expected = [
        *(
            f'net.prototxt:2: layer "d": data_param.{name}'
            for name in ("scale", "mean_file", "crop_size", "mirror")
        ),
        'net.prototxt:3: layer "i": image_data_param.mirror',
        'net.prototxt:4: layer "w": window_data_param.crop_size',
    ]
    assert caplog.record_tuples == [
        (
            "dtrain.core.graph.upgrade.transforms",
            logging.WARNING,
            f"{what} has no effect, as in Caffe; move it to transform_param",
        )
        for what in expected
    ]
    assert document.message == message_of(text)
