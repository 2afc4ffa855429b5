"""Fills a batch with images: opens, checks and transforms each, on several threads.

What the readers of databases and of image lists share. As in Caffe the first image of a batch says the shape of
the batch, so that with batch_size 1 each image may have a size of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.errors import DataError
from dtrain.data.picture import Picture
from dtrain.data.transformer import Transformer
from dtrain.data.workers import Workers

log = logging.getLogger(__name__)

Image = NDArray[Any] | Picture


def fill_images(
    batch: Batch,
    open_item: Callable[[int], Image],
    name_item: Callable[[int], str],
    transformer: Transformer,
    workers: Workers,
) -> None:
    """Write transformed images into the first array of `batch`, which is fitted to the first of them.

    Arguments:
        batch: its epochs and indices say what each image is, and so what is random about it.
        open_item: returns image i of the batch; called once for each, from several threads.
        name_item: returns the name of image i, for messages; from several threads, too.
    Raises DataError in the name of an image that can't be read or differs from the first.
    """
    with errors_named(name_item, 0):
        first = open_item(0)
        shape = transformer.output_shape(first.shape)
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
        if isinstance(image, Picture) and image.flaw:
            log.warning("%s: %s", name_item(item), image.flaw)

    run_named(workers, fill, len(out), name_item)


def run_named(
    workers: Workers, work: Callable[[int], None], count: int, name_item: Callable[[int], str]
) -> None:
    """Let workers do work(0) … work(count − 1); a DataError gets the name of its item in front of each line."""

    def work_on(item: int) -> None:
        try:
            work(item)
        except DataError as error:
            raise _named(error, name_item(item)) from None

    workers.run(work_on, count)


@contextmanager
def errors_named(name_item: Callable[[int], str], item: int) -> Iterator[None]:
    """Put the name of `item` in front of each line of a DataError raised in the with block."""
    try:
        yield
    except DataError as error:
        raise _named(error, name_item(item)) from None


def _named(error: DataError, name: str) -> DataError:
    return DataError("\n".join(f"{name}: {line}" for line in error.problem.splitlines()))
