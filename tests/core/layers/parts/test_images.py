"""Tests of core/layers/parts/images.py."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from google.protobuf import text_format

from dtrain.core.layers.parts import images
from dtrain.core.layers.parts.images import find_folder, make_workers, transform_spec
from dtrain.data.errors import DataError
from dtrain.data.picture import Colors
from dtrain.data.transformer import TransformSpec
from dtrain.dist.cores import Cores, Share
from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import make_layer


def spec_of(fields: str, may_be_compressed: bool = False) -> TransformSpec:
    layer = make_layer(f'type: "ImageData" {fields}', 0, 2)
    return transform_spec(layer, may_be_compressed)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", TransformSpec()),
        ("transform_param { crop_size: 3 mirror: true }", TransformSpec(crop_size=3, mirror=True)),
        # As in Caffe, whose layers of today read the transformation nowhere else.
        ("image_data_param { crop_size: 3 mirror: true }", TransformSpec()),
        ("transform_param { mirror: true } image_data_param { scale: 0.5 }", TransformSpec(mirror=True)),
        ("transform_param { scale: 0.5 } image_data_param { scale: 2 }", TransformSpec(0.5)),
        ('image_data_param { mean_file: "none" }', TransformSpec()),
        ('transform_param { mean_file: "none" }', TransformSpec(mean_file="none")),
    ],
)
def test_transform_spec_is_that_of_transform_param_alone(fields: str, expected: TransformSpec) -> None:
    assert spec_of(fields) == expected


def test_transform_spec_of_fields_that_exclude_each_other_is_refused() -> None:
    with pytest.raises(DataError, match="mean_file and mean_value must not be set both"):
        spec_of('transform_param { mean_value: 3 mean_file: "mean" }')


def test_transform_spec_notes_colors_where_nothing_is_compressed(caplog: pytest.LogCaptureFixture) -> None:
    fields = "transform_param { force_gray: true }"
    with caplog.at_level(logging.WARNING):
        assert spec_of(fields, may_be_compressed=True).colors is Colors.GRAY
        assert not caplog.messages
        spec_of(fields)
    assert len(caplog.messages) == 1


def test_find_folder_looks_in_the_working_directory_then_beside_list_and_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "lists", "nets"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    listed, net = str(tmp_path / "lists/list.txt"), str(tmp_path / "nets/net.prototxt")
    assert find_folder("img_", "a.jpg", listed, net) == "img_"  # nowhere: it is missed where it was named
    (tmp_path / "nets/img_a.jpg").touch()
    assert find_folder("img_", "a.jpg", listed, net) == f"{tmp_path}/nets/img_"
    (tmp_path / "lists/img_a.jpg").touch()
    assert find_folder("img_", "a.jpg", listed, net) == f"{tmp_path}/lists/img_"
    (tmp_path / "here/img_a.jpg").touch()
    assert find_folder("img_", "a.jpg", listed, net) == "img_"
    assert find_folder(f"{tmp_path}/nets/", "img_a.jpg", listed, net) == f"{tmp_path}/nets/"


@pytest.mark.parametrize(("given", "expected"), [(0, 5), (3, 3), (9, 9)])
def test_make_workers_makes_as_many_as_asked_for_or_cores(
    given: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "own_share", lambda _: Share(Cores(5), Cores(5)))
    param = text_format.Parse(f"dtrain_param {{ decode_threads: {given} }}", caffe_pb2.LayerParameter())
    assert make_workers(param).num_threads == expected
