"""Tests of core/layers/window_data.py; what its reader does with pixels is tested in tests/data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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


def window_data(fields: str = "", transform: str = "crop_size: 4") -> str:
    own = f'window_data_param {{ source: "windows.txt" root_folder: "img/" batch_size: 4 {fields} }}'
    return f'type: "WindowData" {own} transform_param {{ {transform} }}'


def test_window_data_puts_out_background_then_foreground(folder: Path) -> None:
    rig = make(window_data("fg_fraction: 0.5 scale: 2", 'crop_size: 4 mean_file: "mean.binaryproto"'))
    assert [blob.shape for blob in rig.top] == [(4, 3, 4, 4), (4,)]
    images, labels = read(rig, 20)
    assert labels == [0, 0, 3, 3] * 20
    expected = {0: 2 * (IMAGES[:, :, 3:7, 4:8] - 10.0), 3: 2 * (IMAGES[:, :, 0:4, 0:4] - 10.0)}
    drawn = set()
    for image, label in zip(images, labels, strict=True):
        found = [
            number for number in range(NUM_IMAGES) if np.array_equal(image, expected[int(label)][number])
        ]
        assert len(found) == 1
        drawn.update(found)
    assert drawn == set(range(NUM_IMAGES))
    rig.layer.close()


def test_window_data_draws_in_test_as_in_train(folder: Path) -> None:
    rigs = [make(window_data("mirror: true"), phase) for phase in (TRAIN, TEST)]
    (train, _), (test, _) = (read(rig, 5) for rig in rigs)
    np.testing.assert_array_equal(train, test)
    for rig in rigs:
        rig.layer.close()


def test_window_data_with_context_and_square_cuts_more(folder: Path) -> None:
    # Of a window of 4x4 at the corner, in 4 pixels with 1 of context: x and y from -2 to 6, so -2, -1 are padding.
    rig = make(window_data('fg_fraction: 1 context_pad: 1 crop_mode: "square" cache_images: true'))
    image = rig.forward()[0][0]
    assert not image[:, 0].any()
    assert not image[:, :, 0].any()
    assert image[:, 1:, 1:].all()
    rig.layer.close()


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ('type: "WindowData"', "^window_data_param.source must name a window file, got none$"),
        (window_data().replace("windows.txt", "none"), "^none: window file must be readable"),
        (
            window_data().replace("batch_size: 4", ""),
            "^window_data_param.batch_size must be at least 1, got none$",
        ),
        (window_data(transform=""), "^transform_param.crop_size must be at least 1, got none$"),
        (
            window_data('crop_mode: "warped"'),
            '^window_data_param.crop_mode must be "warp" or "square", got "warped"$',
        ),
        (window_data("context_pad: 2"), "^context_pad must be less than half of crop_size 4, got 2$"),
        (
            window_data("fg_threshold: 1"),
            "^windows.txt: must have foreground windows, 1 for each batch, got none$",
        ),
        (
            window_data("scale: 2", "crop_size: 4 scale: 3"),
            "^scale must be given once, got 3.0 in transform_param and 2.0 in window_data_param",
        ),
    ],
)
def test_window_data_that_can_not_be_says_why(layer: str, problem: str, folder: Path) -> None:
    with pytest.raises((UserError, DataError), match=problem):
        make(layer)


def test_window_data_has_two_tops() -> None:
    assert LAYERS["WindowData"].tops == Arity(2, 2)
