"""Tests of core/layers/image_data.py; what its reader does with pixels is tested in tests/data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dtrain.core.errors import UserError
from dtrain.core.layers import LAYERS
from dtrain.core.layers.layer import Arity
from dtrain.data.errors import DataError
from tests.core.layers.image_files import IMAGES, NUM_IMAGES, make, read, write_images
from tests.core.layers.layer_harness import TEST, TRAIN


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with the images."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path)
    return tmp_path


def image_data(fields: str = "", others: str = "") -> str:
    own = f'image_data_param {{ source: "list.txt" root_folder: "img/" batch_size: 3 {fields} }}'
    return f'type: "ImageData" {own} {others}'


@pytest.mark.parametrize(
    ("fields", "others", "expected"),
    [
        ("", "", IMAGES),
        ("", "transform_param { scale: 2 mean_value: 1 mean_value: 2 mean_value: 3 }", None),
        ("", 'transform_param { mean_file: "mean.binaryproto" }', IMAGES - 10.0),
        ("", "transform_param { crop_size: 3 }", IMAGES[:, :, 2:5, 2:5]),  # in TEST from the middle
        (
            "crop_size: 2",  # of no effect here, as in Caffe
            "transform_param { crop_size: 3 } dtrain_param { decode_threads: 1 }",
            IMAGES[:, :, 2:5, 2:5],
        ),
    ],
)
def test_image_data_puts_out_transformed_images_and_labels(
    fields: str, others: str, expected: np.ndarray | None, folder: Path
) -> None:
    if expected is None:
        expected = 2 * (IMAGES - np.array([1.0, 2, 3]).reshape(3, 1, 1))
    rig = make(image_data(fields, others), TEST)
    assert [blob.shape for blob in rig.top] == [(3, *expected.shape[1:]), (3,)]
    images, labels = read(rig, 3)
    np.testing.assert_array_equal(images, expected[[0, 1, 2, 3, 4, 5, 0, 1, 2]])
    assert labels == [0, 2, 4, 6, 8, 10, 0, 2, 4]
    rig.layer.close()


@pytest.mark.parametrize(
    ("fields", "others", "shape"),
    [
        ("is_color: false", "", (3, 1, 7, 8)),
        ("new_height: 5 new_width: 9", "", (3, 3, 5, 9)),
        ("", "transform_param { crop_size: 2 }", (3, 3, 2, 2)),
    ],
)
def test_image_data_has_the_shape_of_its_images_before_the_first_batch(
    fields: str, others: str, shape: tuple[int, ...], folder: Path
) -> None:
    rig = make(image_data(fields, others))
    assert rig.top[0].shape == shape
    assert rig.forward()[0].shape == shape
    rig.layer.close()


def test_image_data_of_several_sizes_reshapes_its_top(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "img/1.png")
    rig = make(image_data().replace("batch_size: 3", ""))
    shapes = [rig.forward()[0].shape for _ in range(3)]
    assert shapes == [(1, 3, 7, 8), (1, 3, 4, 5), (1, 3, 7, 8)]
    rig.layer.close()


@pytest.mark.parametrize(
    ("fields", "phase", "is_shuffled"),
    [
        (image_data(), TRAIN, False),
        (image_data("shuffle: true"), TRAIN, True),
        (image_data("shuffle: true"), TEST, True),
        (image_data("", "dtrain_param { shuffle: true }"), TRAIN, True),
        (image_data("", "dtrain_param { shuffle: true }"), TEST, False),
    ],
)
def test_image_data_shuffles_each_epoch_anew(
    fields: str, phase: int, is_shuffled: bool, folder: Path
) -> None:
    rig = make(fields, phase)
    images, labels = read(rig, 8)
    np.testing.assert_array_equal(images, IMAGES[[int(label) // 2 for label in labels]])
    epochs = [labels[start : start + NUM_IMAGES] for start in range(0, 24, NUM_IMAGES)]
    assert all(sorted(epoch) == [0, 2, 4, 6, 8, 10] for epoch in epochs)
    assert len(set(map(tuple, epochs))) == (4 if is_shuffled else 1)
    rig.layer.close()


def test_image_data_with_rand_skip_begins_below_it(folder: Path) -> None:
    rig = make(image_data("rand_skip: 4"))
    _, labels = read(rig, 2)
    assert labels[0] in (0, 2, 4, 6)
    assert labels == [(labels[0] + 2 * k) % 12 for k in range(6)]
    rig.layer.close()


def test_image_data_finds_images_beside_the_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    rig = make(image_data().replace("list.txt", "../list.txt"), TEST)
    np.testing.assert_array_equal(rig.forward()[0], IMAGES[:3])
    rig.layer.close()


def test_image_that_vanishes_later_is_named_by_its_line(folder: Path) -> None:
    rig = make(image_data())
    (folder / "img/2.png").unlink()
    with pytest.raises(DataError, match="^list.txt:3: img/2.png: image must be readable, got: No such file"):
        rig.forward()
    rig.layer.close()


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ('type: "ImageData"', "^image_data_param.source must name a list of images, got none$"),
        (image_data().replace("list.txt", "none"), "^none: image list must be readable"),
        (image_data("new_height: 5"), "new_height and new_width must be given both or none, got 5 and 0"),
        (image_data("rand_skip: 7"), "^list.txt: rand_skip must be at most 6, the number of lines, got 7"),
        (
            image_data("", "transform_param { crop_size: 9 }"),
            "^list.txt:1: transform_param: crop_size must fit into the records of 3x7x8, got 9",
        ),
        (
            image_data().replace("img/", "no/"),
            "^list.txt:1: no/0.png: image must be readable, got: No such file",
        ),
        (image_data("", 'transform_param { mean_file: "none" }'), "^none: mean_file must be a readable file"),
    ],
)
def test_image_data_that_can_not_be_says_why(layer: str, problem: str, folder: Path) -> None:
    with pytest.raises((UserError, DataError), match=problem):
        make(layer)


def test_image_data_has_two_tops() -> None:
    assert LAYERS["ImageData"].tops == Arity(2, 2)
