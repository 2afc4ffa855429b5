"""Fills a batch with images: opens, checks and transforms each, or leaves it as it is stored; on several threads.

What the readers of databases and of image lists share. As in Caffe the first image of a batch says the shape of
the batch, so that with batch_size 1 each image may have a size of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Batch, Shape
from dtrain.data.errors import DataError
from dtrain.data.picture import Picture
from dtrain.data.transformer import Transformer
from dtrain.data.workers import Workers

log = logging.getLogger(__name__)

Image = NDArray[Any] | Picture

_NUM_IN_A_TURN = 16  # images that a thread copies


def fill_images(
    batch: Batch,
    open_item: Callable[[int], Image],
    name_item: Callable[[int], str],
    transformer: Transformer,
    workers: Workers,
    leaves_images: bool = False,
) -> None:
    """Write transformed images into the first array of `batch`, which is fitted to the first of them.

    If leaves_images they are written as they are stored instead, unless they differ in size or are not all of bytes.

    Arguments:
        batch: its epochs and indices say what each image is, and so what is random about it.
        open_item: returns image i of the batch; called once for each, from several threads.
        name_item: returns the name of image i, for messages; from several threads, too.
    Raises DataError in the name of an image that can't be read or differs from the first.
    """
    with errors_named(name_item, 0):
        first = open_item(0)
        shape = transformer.output_shape(first.shape)
    if leaves_images and _fill_stored(batch, first, open_item, name_item, transformer, workers):
        return
    out = batch.fit(0, shape)
    draws = transformer.draw(batch.epochs, batch.indices)

    def fill(item: int) -> None:
        image = open_item(item) if item else first
        own_shape = transformer.output_shape(image.shape)
        if own_shape != shape:
            expected, got = ("x".join(map(str, sizes)) for sizes in (shape, own_shape))
            raise DataError(
                f"size must be {expected} like that of {name_item(0)} in the same batch, got {got}; "
                "give all images one size, or batch_size: 1"
            )
        transformer.transform_image(image, draws[item], out[item])
        _warn_of_flaw(image, item, name_item)

    run_named(workers, fill, len(out), name_item)


class _Differs(Exception):
    """An image is of another size than the first, or not of bytes."""


def _fill_stored(
    batch: Batch,
    first: Image,
    open_item: Callable[[int], Image],
    name_item: Callable[[int], str],
    transformer: Transformer,
    workers: Workers,
) -> bool:
    """Write what will be cut out of each image as it is stored; return False if one differs from the first."""
    height = transformer.output_shape(first.shape)[1]
    windows = transformer.windows(first.shape, batch.epochs, batch.indices)
    out = batch.fit_stored(first.shape, windows, channels_last=isinstance(first, Picture))
    first_rows = windows[:, 0].tolist()

    def open_alike(item: int) -> Image:
        image = open_item(item) if item else first
        is_alike = image.shape == first.shape and (isinstance(image, Picture) or image.dtype == np.uint8)
        if not is_alike:
            raise _Differs
        return image

    def fill(item: int) -> None:
        put(item, open_alike(item))

    def put(item: int, image: Image) -> None:
        rows = slice(first_rows[item], first_rows[item] + height)
        pixels = image.pixels(rows.stop) if isinstance(image, Picture) else image
        out[item][:, rows] = pixels[:, rows]
        _warn_of_flaw(image, item, name_item)

    try:
        if isinstance(first, Picture):
            run_named(workers, fill, len(out), name_item)
        else:
            _put_arrays(open_alike, put, len(out), name_item, workers)
    except _Differs:
        return False
    return True


def _put_arrays(
    open_item: Callable[[int], Image],
    put: Callable[[int, Image], None],
    count: int,
    name_item: Callable[[int], str],
    workers: Workers,
) -> None:
    """Open and put images that are only copied: between copies threads would fight over the interpreter."""
    images: list[Image] = []

    def open_and_keep(item: int) -> None:
        images.append(open_item(item))

    def put_some(turn: int) -> None:
        items = range(turn * _NUM_IN_A_TURN, min((turn + 1) * _NUM_IN_A_TURN, count))
        _do_named(lambda item: put(item, images[item]), items, name_item)

    _do_named(open_and_keep, range(count), name_item)
    workers.run(put_some, -(-count // _NUM_IN_A_TURN))


def put_images(
    batch: Batch,
    images: NDArray[Any] | Sequence[NDArray[Any]],
    shape: Shape,
    transformer: Transformer,
    leaves_images: bool,
) -> None:
    """Write images that are at hand into the first array of `batch`, transformed or as they are stored.

    images: uint8, N of `shape` (C, H, W), one array or one for each.
    """
    if not leaves_images:
        out = batch.fit(0, transformer.output_shape(shape))
        transformer.transform_batch(images, batch.epochs, batch.indices, out)
        return
    stored = batch.fit_stored(shape, transformer.windows(shape, batch.epochs, batch.indices))
    if isinstance(images, np.ndarray):
        stored[...] = images
        return
    for image, target in zip(images, stored, strict=True):
        target[...] = image


def _warn_of_flaw(image: Image, item: int, name_item: Callable[[int], str]) -> None:
    if isinstance(image, Picture) and image.flaw:
        log.warning("%s: %s", name_item(item), image.flaw)


def run_named(
    workers: Workers, work: Callable[[int], None], count: int, name_item: Callable[[int], str]
) -> None:
    """Let workers do work(0) … work(count − 1); a DataError gets the name of its item in front of each line."""

    workers.run(lambda item: _do_named(work, (item,), name_item), count)


def _do_named(work: Callable[[int], None], items: Iterable[int], name_item: Callable[[int], str]) -> None:
    item = 0
    try:
        for item in items:
            work(item)
    except DataError as error:
        raise _named(error, name_item(item)) from None


@contextmanager
def errors_named(name_item: Callable[[int], str], item: int) -> Iterator[None]:
    """Put the name of `item` in front of each line of a DataError raised in the with block."""
    try:
        yield
    except DataError as error:
        raise _named(error, name_item(item)) from None


def _named(error: DataError, name: str) -> DataError:
    return DataError("\n".join(f"{name}: {line}" for line in error.problem.splitlines()))
