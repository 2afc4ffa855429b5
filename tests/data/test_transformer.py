"""Tests of data/transformer.py, against Caffe's formula written out pixel by pixel."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.data.picture import Colors, Picture
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.proto import caffe_pb2

RECORD_SHAPE = (2, 7, 6)
NUM_IMAGES = 64
IMAGES = np.random.default_rng(1).integers(0, 256, (NUM_IMAGES, *RECORD_SHAPE), np.uint8)
MEAN_IMAGE = np.random.default_rng(2).uniform(0, 255, RECORD_SHAPE).astype(np.float32)
EPOCHS = np.repeat([0, 3], NUM_IMAGES // 2)
INDICES = np.arange(NUM_IMAGES) % 48


@pytest.fixture(scope="module")
def mean_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of MEAN_IMAGE."""
    blob = caffe_pb2.BlobProto(num=1, channels=2, height=7, width=6, data=MEAN_IMAGE.ravel().tolist())
    path = tmp_path_factory.mktemp("mean") / "mean.binaryproto"
    path.write_bytes(blob.SerializeToString())
    return str(path)


def transform(
    transformer: Transformer, images: NDArray[np.generic] | list[NDArray[np.generic]] = IMAGES
) -> NDArray[np.float32]:
    shape = transformer.output_shape(images[0].shape)
    out = np.full((len(images), *shape), np.nan, np.float32)
    transformer.transform_batch(images, EPOCHS[: len(images)], INDICES[: len(images)], out)
    return out


def caffes_formula(
    image: NDArray[np.uint8],
    row: int,
    column: int,
    side: int,
    flip: bool,
    mean: NDArray[np.float32],
    scale: float,
) -> NDArray[np.float32]:
    """data_transformer.cpp: the window's pixel (h, w) goes to (h, side − 1 − w) when mirrored."""
    result = np.zeros((image.shape[0], side, side), np.float32)
    for c in range(image.shape[0]):
        for h in range(side):
            for w in range(side):
                value = (
                    np.float32(image[c, row + h, column + w]) - mean[c, row + h, column + w]
                ) * np.float32(scale)
                result[c, h, side - 1 - w if flip else w] = value
    return result


def find_choice(
    image: NDArray[np.uint8], result: NDArray[np.float32], mean: NDArray[np.float32], scale: float
) -> tuple[int, int, bool]:
    """Return the one (row, column, flip) by which Caffe's formula gives `result`."""
    side = result.shape[1]
    choices = [
        (row, column, flip)
        for row in range(image.shape[1] - side + 1)
        for column in range(image.shape[2] - side + 1)
        for flip in (False, True)
        if np.array_equal(caffes_formula(image, row, column, side, flip, mean, scale), result)
    ]
    assert len(choices) == 1
    return choices[0]


MEANS = {
    "none": ((), np.zeros(RECORD_SHAPE, np.float32)),
    "one value": ((30.5,), np.full(RECORD_SHAPE, 30.5, np.float32)),
    "a value a channel": ((104.0, 117.0), np.stack([np.full((7, 6), v, np.float32) for v in (104, 117)])),
    "file": ((), MEAN_IMAGE),
}


@pytest.mark.parametrize("scale", [1.0, 0.00390625])
@pytest.mark.parametrize("mean", MEANS)
def test_transform_batch_in_train_is_caffes_formula_of_some_window(
    mean: str, scale: float, mean_file: str
) -> None:
    spec = TransformSpec(scale, True, 4, mean_file if mean == "file" else "", MEANS[mean][0])
    results = transform(Transformer(spec, train=True, seed=9))
    choices = [
        find_choice(image, result, MEANS[mean][1], scale)
        for image, result in zip(IMAGES, results, strict=True)
    ]
    assert {row for row, _, _ in choices} == {0, 1, 2, 3}
    assert {column for _, column, _ in choices} == {0, 1, 2}
    assert {flip for _, _, flip in choices} == {False, True}


@pytest.mark.parametrize("train", [True, False])
def test_windows_are_where_transform_batch_cuts(train: bool) -> None:
    transformer = Transformer(TransformSpec(mirror=True, crop_size=4), train, seed=9)
    none = np.zeros(RECORD_SHAPE, np.float32)
    choices = [
        find_choice(image, result, none, 1.0)
        for image, result in zip(IMAGES, transform(transformer), strict=True)
    ]
    windows = transformer.windows(RECORD_SHAPE, EPOCHS, INDICES)
    assert windows.dtype == np.int32
    assert windows.tolist() == [list(map(int, choice)) for choice in choices]


def test_mean_is_an_image_or_values_or_none(mean_file: str) -> None:
    assert Transformer(TransformSpec(), train=True).mean is None
    values = Transformer(TransformSpec(mean_values=(1, 2)), train=True).mean
    assert values is not None
    assert (values.shape, values.ravel().tolist()) == ((2, 1, 1), [1, 2])
    image = Transformer(TransformSpec(mean_file=mean_file), train=True).mean
    np.testing.assert_array_equal(image, MEAN_IMAGE)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("mean", MEANS)
def test_transform_batch_in_test_is_caffes_formula_of_the_centre(
    mean: str, as_list: bool, mean_file: str
) -> None:
    spec = TransformSpec(0.5, False, 4, mean_file if mean == "file" else "", MEANS[mean][0])
    results = transform(Transformer(spec, train=False), list(IMAGES) if as_list else IMAGES)
    for image, result in zip(IMAGES, results, strict=True):
        # caffe: h_off = (height − crop) / 2, an integer division; here (7 − 4) / 2 and (6 − 4) / 2
        assert np.array_equal(result, caffes_formula(image, 1, 1, 4, False, MEANS[mean][1], 0.5))


def test_transform_batch_in_test_with_mirror_flips_about_half() -> None:
    results = transform(Transformer(TransformSpec(mirror=True), train=False))
    flips = [np.array_equal(result, image[..., ::-1]) for image, result in zip(IMAGES, results, strict=True)]
    straight = [np.array_equal(result, image) for image, result in zip(IMAGES, results, strict=True)]
    assert flips == [not same for same in straight]
    assert 16 <= sum(flips) <= 48  # 4 standard deviations


def test_transform_batch_of_floats_equals_that_of_the_same_bytes(mean_file: str) -> None:
    transformer = Transformer(TransformSpec(0.25, True, 3, mean_file), train=True, seed=4)
    mixed: list[NDArray[np.generic]] = [
        image if index % 2 else image.astype(np.float32) for index, image in enumerate(IMAGES)
    ]
    assert np.array_equal(transform(transformer, mixed), transform(transformer))


def test_transform_batch_of_a_strided_array_equals_that_of_a_plain_one() -> None:
    wide = np.zeros((NUM_IMAGES, 100), np.uint8)
    wide[:, 8:92] = IMAGES.reshape(NUM_IMAGES, 84)
    transformer = Transformer(TransformSpec(0.25), train=True)
    strided = wide[:, 8:92].reshape(IMAGES.shape)
    assert np.array_equal(transform(transformer, strided), IMAGES.astype(np.float32) * np.float32(0.25))


@pytest.mark.parametrize("mean", MEANS)
def test_transform_image_of_alternating_channels_equals_that_of_channels_apart(
    mean: str, mean_file: str
) -> None:
    spec = TransformSpec(0.5, True, 4, mean_file if mean == "file" else "", MEANS[mean][0])
    transformer = Transformer(spec, train=True, seed=5)
    alternating = [image.transpose(1, 2, 0).copy().transpose(2, 0, 1) for image in IMAGES]
    assert np.array_equal(transform(transformer, alternating), transform(transformer))


def test_transform_image_of_a_picture_asks_for_no_row_below_its_window() -> None:
    class Rows(Picture):
        shape = RECORD_SHAPE

        def __init__(self, number: int) -> None:
            self.number = number

        def pixels(self, num_rows: int | None = None) -> NDArray[np.uint8]:
            asked.append(num_rows)
            return IMAGES[self.number][:, :num_rows]

    asked: list[int | None] = []
    transformer = Transformer(TransformSpec(mirror=True, crop_size=3), train=True, seed=5)
    out = np.empty((NUM_IMAGES, 2, 3, 3), np.float32)
    for number, draw in enumerate(transformer.draw(EPOCHS, INDICES)):
        transformer.transform_image(Rows(number), draw, out[number])
    assert np.array_equal(out, transform(transformer))
    assert set(asked) == {3, 4, 5, 6, 7}


def test_output_shape_is_that_of_each_image() -> None:
    transformer = Transformer(TransformSpec(mean_values=(1, 2, 3)), train=True)
    assert transformer.output_shape((3, 5, 6)) == (3, 5, 6)
    assert transformer.output_shape((3, 6, 5)) == (3, 6, 5)
    for _ in range(2):
        with pytest.raises(DataError, match="mean_value must be given once or for each of 1 channels, got 3"):
            transformer.output_shape((1, 5, 6))


def test_transform_batch_depends_on_seed_epoch_and_record_only() -> None:
    spec = TransformSpec(mirror=True, crop_size=2)
    together = transform(Transformer(spec, train=True, seed=7))
    order = np.random.default_rng(3).permutation(NUM_IMAGES)
    for chunk in np.split(order, 8):
        out = np.empty((len(chunk), 2, 2, 2), np.float32)
        again = Transformer(spec, train=True, seed=7)
        again.transform_batch(IMAGES[chunk], EPOCHS[chunk], INDICES[chunk], out)
        assert np.array_equal(out, together[chunk])


def test_transform_batch_of_another_seed_or_epoch_differs() -> None:
    spec = TransformSpec(mirror=True, crop_size=2)
    same_image = np.repeat(IMAGES[:1], 40, axis=0)
    results = []
    for seed, epoch in ((1, 0), (2, 0), (1, 1)):
        out = np.empty((40, 2, 2, 2), np.float32)
        Transformer(spec, train=True, seed=seed).transform_batch(
            same_image, np.full(40, epoch), np.arange(40), out
        )
        results.append(out.tobytes())
    assert len(set(results)) == 3


@pytest.mark.parametrize(
    ("crop_size", "expected"), [(0, (2, 7, 6)), (1, (2, 1, 1)), (4, (2, 4, 4)), (6, (2, 6, 6))]
)
def test_output_shape_of_a_crop_is_a_square(crop_size: int, expected: tuple[int, int, int]) -> None:
    transformer = Transformer(TransformSpec(crop_size=crop_size), train=True)
    assert transformer.output_shape(RECORD_SHAPE) == expected


def test_output_shape_that_does_not_fit_names_all_that_is_wrong(mean_file: str) -> None:
    spec = TransformSpec(crop_size=7, mean_values=(1, 2, 3), where="net.prototxt:9")
    with pytest.raises(DataError) as caught:
        Transformer(spec, train=True).output_shape(RECORD_SHAPE)
    assert caught.value.problem.splitlines() == [
        "net.prototxt:9: crop_size must fit into the records of 2x7x6, got 7",
        "net.prototxt:9: mean_value must be given once or for each of 2 channels, got 3",
    ]
    with pytest.raises(DataError) as caught:
        Transformer(TransformSpec(mean_file=mean_file), train=True).output_shape((2, 6, 7))
    assert caught.value.problem == f"{mean_file}: mean image must be of the records' size 2x6x7, got 2x7x6"


def test_transformer_without_its_mean_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mean_file must be a readable file"):
        Transformer(TransformSpec(mean_file=str(tmp_path / "no")), train=True)


def test_from_param_of_a_full_message_takes_every_field() -> None:
    param = caffe_pb2.TransformationParameter(scale=0.5, mirror=True, crop_size=4, mean_value=[1, 2])
    assert TransformSpec.from_param(param, "x:1") == TransformSpec(0.5, True, 4, "", (1.0, 2.0), "x:1")
    param = caffe_pb2.TransformationParameter(mean_file="mean")
    assert TransformSpec.from_param(param) == TransformSpec(mean_file="mean")


def test_from_param_of_fields_that_exclude_each_other_names_all() -> None:
    param = caffe_pb2.TransformationParameter(
        mean_file="m", mean_value=[1], force_color=True, force_gray=True
    )
    with pytest.raises(DataError) as caught:
        TransformSpec.from_param(param, "net.prototxt:3")
    assert caught.value.problem.splitlines() == [
        "net.prototxt:3: mean_file and mean_value must not be set both; take one out",
        "net.prototxt:3: force_color and force_gray must not be set both; take one out",
    ]


@pytest.mark.parametrize(
    ("field", "colors"),
    [("force_color", Colors.COLOR), ("force_gray", Colors.GRAY), ("mirror", Colors.STORED)],
)
def test_from_param_takes_colors_and_notes_where_they_do_nothing(
    field: str, colors: Colors, caplog: pytest.LogCaptureFixture
) -> None:
    param = caffe_pb2.TransformationParameter(**{field: True})
    with caplog.at_level(logging.WARNING):
        assert TransformSpec.from_param(param, "net.prototxt:3", may_be_compressed=True).colors is colors
        assert caplog.messages == []
        TransformSpec.from_param(param, "net.prototxt:3")
    warning = "net.prototxt:3: force_color and force_gray are for compressed images only"
    assert caplog.messages == [warning] * (colors is not Colors.STORED)
