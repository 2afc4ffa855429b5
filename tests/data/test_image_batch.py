"""Tests of data/image_batch.py."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.errors import DataError
from dtrain.data.image_batch import Image, errors_named, fill_images, run_named
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
