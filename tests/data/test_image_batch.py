"""Tests of data/image_batch.py."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.errors import DataError
from dtrain.data.image_batch import Image, errors_named, fill_images, put_images, run_named
from dtrain.data.picture import Picture
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.data.workers import Workers

IMAGES = np.random.default_rng(1).integers(0, 256, (12, 3, 8, 9), np.uint8)


class Drawn(Picture):
    """A picture of given pixels that notes how many rows are asked for."""

    def __init__(self, pixels: NDArray[np.uint8], asked: list[int | None], flaw: str = "") -> None:
        self.shape = pixels.shape  # type: ignore[assignment]
        self._pixels, self._asked, self._flaw = pixels, asked, flaw

    def pixels(self, num_rows: int | None = None) -> NDArray[np.uint8]:
        self._asked.append(num_rows)
        self.flaw = self._flaw
        return self._pixels[:, :num_rows]


def new_batch(size: int) -> Batch:
    batch = Batch(size, [(), ()])
    batch.epochs[:], batch.indices[:] = 0, np.arange(size)
    return batch


def name(item: int) -> str:
    return f"image {item}"


@pytest.mark.parametrize("num_threads", [1, 3])
def test_fill_images_of_arrays_and_pictures_transforms_each_once(num_threads: int) -> None:
    opened, asked = [], list[int | None]()

    def open_item(item: int) -> Image:
        opened.append(item)
        return IMAGES[item] if item % 2 else Drawn(IMAGES[item], asked)

    transformer = Transformer(TransformSpec(scale=2, crop_size=5, mean_values=(7,)), train=False)
    batch, workers = new_batch(12), Workers(num_threads)
    fill_images(batch, open_item, name, transformer, workers)
    assert np.array_equal(batch.data, 2 * (IMAGES[:, :, 1:6, 2:7] - np.float32(7)))
    assert sorted(opened) == list(range(12))
    assert asked == [6] * 6  # no row below the window
    workers.close()


def test_fill_images_is_the_same_on_any_number_of_threads() -> None:
    results = []
    for num_threads in (1, 4):
        transformer = Transformer(TransformSpec(mirror=True, crop_size=4), train=True, seed=3)
        batch, workers = new_batch(12), Workers(num_threads)
        fill_images(batch, lambda item: IMAGES[item], name, transformer, workers)
        results.append(batch.data)
        workers.close()
    assert np.array_equal(*results)


def test_fill_images_takes_the_shape_of_each_batch_from_its_first_image() -> None:
    transformer, batch = Transformer(TransformSpec(), train=True), new_batch(1)
    for height in (8, 3, 5):
        fill_images(batch, lambda _, height=height: IMAGES[0][:, :height], name, transformer, Workers())
        assert np.array_equal(batch.data, IMAGES[:1, :, :height])


def test_fill_images_of_several_sizes_needs_a_crop() -> None:
    cropping = Transformer(TransformSpec(crop_size=2), train=False)
    batch = new_batch(6)
    fill_images(batch, lambda item: IMAGES[item][:, : 8 - item], name, cropping, Workers())
    for item in range(6):
        row = (6 - item) // 2
        assert np.array_equal(batch.data[item], IMAGES[item][:, row : row + 2, 3:5])
    with pytest.raises(DataError) as caught:
        fill_images(
            new_batch(6),
            lambda item: IMAGES[item][:, : 8 - item // 4],
            name,
            Transformer(TransformSpec(), train=True),
            Workers(),
        )
    assert caught.value.problem == (
        "image 4: size must be 3x8x9 like that of image 0 in the same batch, got 3x7x9; "
        "give all images one size, or batch_size: 1"
    )


@pytest.mark.parametrize("bad", [0, 3])
def test_fill_images_with_an_image_smaller_than_the_crop_names_it(bad: int) -> None:
    transformer = Transformer(TransformSpec(crop_size=5), train=True)
    with pytest.raises(DataError) as caught:
        fill_images(
            new_batch(6),
            lambda item: IMAGES[item][:, : 4 if item == bad else 8],
            name,
            transformer,
            Workers(),
        )
    problem = f"image {bad}: transform_param: crop_size must fit into the records of 3x4x9, got 5"
    assert caught.value.problem == problem


def test_fill_images_logs_flaws_by_name(caplog: pytest.LogCaptureFixture) -> None:
    transformer = Transformer(TransformSpec(), train=True)
    with caplog.at_level(logging.WARNING):
        fill_images(
            new_batch(3),
            lambda item: Drawn(IMAGES[item], [], "mended" if item == 1 else ""),
            name,
            transformer,
            Workers(),
        )
    assert caplog.messages == ["image 1: mended"]


def test_run_named_names_the_item_at_fault_in_every_line() -> None:
    threads = set()

    def work(item: int) -> None:
        threads.add(threading.current_thread().name)
        if item == 2:
            raise DataError("one\ntwo")

    with pytest.raises(DataError) as caught:
        run_named(Workers(), work, 4, name)
    assert caught.value.problem == "image 2: one\nimage 2: two"


def test_errors_named_lets_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="^a bug$"), errors_named(name, 1):
        raise ValueError("a bug")


def cut(batch: Batch, crop_size: int) -> NDArray[np.uint8]:
    """Return what the windows of images as stored show, (N, C, h, w)."""
    assert batch.windows is not None
    images = batch.data.transpose(0, 3, 1, 2) if batch.channels_last else batch.data
    shown = []
    for image, (row, column, is_flipped) in zip(images, batch.windows.tolist(), strict=True):
        window = image[:, row : row + crop_size, column : column + crop_size]
        shown.append(window[..., ::-1] if is_flipped else window)
    return np.array(shown)


@pytest.mark.parametrize("are_pictures", [False, True])
def test_fill_images_left_as_stored_holds_what_is_to_be_cut_out(are_pictures: bool) -> None:
    asked: list[int | None] = []
    transformer = Transformer(TransformSpec(crop_size=5, mirror=True), train=True, seed=3)
    batch, expected, workers = new_batch(12), new_batch(12), Workers(2)

    def open_item(item: int) -> Image:
        return Drawn(IMAGES[item], asked) if are_pictures else IMAGES[item]

    fill_images(batch, open_item, name, transformer, workers, leaves_images=True)
    assert batch.channels_last is are_pictures
    assert batch.data.dtype == np.uint8
    fill_images(expected, IMAGES.__getitem__, name, transformer, workers)
    np.testing.assert_array_equal(cut(batch, 5), expected.data)
    if are_pictures:
        assert batch.windows is not None
        assert sorted(map(int, asked)) == sorted(row + 5 for row in batch.windows[:, 0])  # type: ignore[arg-type]
    workers.close()


def test_fill_images_left_as_stored_of_arrays_and_pictures_holds_both() -> None:
    transformer = Transformer(TransformSpec(crop_size=5), train=False)
    batch = new_batch(12)
    fill_images(
        batch,
        lambda item: IMAGES[item] if item % 3 else Drawn(IMAGES[item], []),
        name,
        transformer,
        Workers(),
        leaves_images=True,
    )
    assert batch.channels_last
    np.testing.assert_array_equal(cut(batch, 5), IMAGES[:, :, 1:6, 2:7])


@pytest.mark.parametrize("odd", [IMAGES[7, :, :6, :7], IMAGES[7].astype(np.float32) + 0.5])
@pytest.mark.parametrize("are_pictures", [False, True])
def test_fill_images_of_other_sizes_or_floats_are_not_left_as_stored(
    odd: NDArray[np.generic], are_pictures: bool
) -> None:
    transformer = Transformer(TransformSpec(scale=2, crop_size=4), train=False)

    def open_item(item: int) -> Image:
        if item == 7:
            return odd
        return Drawn(IMAGES[item], []) if are_pictures else IMAGES[item]

    batch, expected = new_batch(12), new_batch(12)
    fill_images(batch, open_item, name, transformer, Workers(), leaves_images=True)
    assert (batch.windows, batch.channels_last) == (None, False)
    fill_images(expected, open_item, name, transformer, Workers())
    np.testing.assert_array_equal(batch.data, expected.data, strict=True)


@pytest.mark.parametrize("are_pictures", [False, True])
@pytest.mark.parametrize("place", [0, 5])
def test_fill_images_left_as_stored_names_the_one_that_cannot_be_read(place: int, are_pictures: bool) -> None:
    def open_item(item: int) -> Image:
        if item >= place:
            raise DataError("it is damaged")
        return Drawn(IMAGES[item], []) if are_pictures else IMAGES[item]

    transformer = Transformer(TransformSpec(), train=False)
    with pytest.raises(DataError, match=f"^image {place}: it is damaged$"):
        fill_images(new_batch(12), open_item, name, transformer, Workers(2), leaves_images=True)


@pytest.mark.parametrize("as_one_array", [False, True])
def test_put_images_puts_them_as_they_are_or_transformed(as_one_array: bool) -> None:
    transformer = Transformer(TransformSpec(scale=2, crop_size=5), train=False)
    images = IMAGES if as_one_array else list(IMAGES)
    batch = new_batch(12)
    put_images(batch, images, IMAGES.shape[1:], transformer, leaves_images=True)
    np.testing.assert_array_equal(cut(batch, 5), IMAGES[:, :, 1:6, 2:7])
    put_images(batch, images, IMAGES.shape[1:], transformer, leaves_images=False)
    assert batch.windows is None
    np.testing.assert_array_equal(batch.data, 2.0 * IMAGES[:, :, 1:6, 2:7])
