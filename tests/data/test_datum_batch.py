"""Tests of data/datum_batch.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.datum_batch import MAX_RECORD_BYTES, CanonicalLayout

LAYOUT = CanonicalLayout((2, 3, 4))
MakeDatum = Callable[..., bytes]


def as_views(records: list[bytes]) -> list[memoryview]:
    return [memoryview(record) for record in records]


@pytest.mark.parametrize("tail", [b"", b"\x38\x00"])
def test_slice_batch_of_canonical_records_returns_images_and_labels(
    tail: bytes, make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    records = [make_datum(image, label) + tail for image, label in zip(images, range(118, 128), strict=True)]
    sliced = LAYOUT.slice_batch(as_views(records))
    assert sliced is not None
    assert np.array_equal(sliced[0], images)
    assert sliced[1].tolist() == list(range(118, 128))


def test_slice_batch_of_records_that_look_alike_is_left_to_parse_datum(
    make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    good = make_datum(images[0], 5)
    odd = {
        "large label": make_datum(images[0], 128),
        "other shape": make_datum(images[0].reshape(2, 4, 3), 5),
        "other pixels": make_datum(images[0][:, :, :3].copy(), 5),
        "floats": make_datum(images[0].astype(np.float32), 5),
        "no label": good[:-2],
        "label first": good[-2:] + good[:-2],
        "other field for a label": good[:-2] + b"\x40\x05",
        "label that goes on": good[:-1] + b"\x85",
        "encoded": good + b"\x38\x01",
        "encoded, said once more": good + b"\x38\x00\x38\x00",
        "empty": b"",
    }
    for name, record in odd.items():
        assert LAYOUT.slice_batch(as_views([good, record])) is None, name
        assert LAYOUT.slice_batch(as_views([record, good])) is None, name


def test_slice_batch_of_unequal_lengths_that_add_up_is_left_to_parse_datum(
    make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    good = make_datum(images[0], 5)
    assert LAYOUT.slice_batch(as_views([good, good[:-1], good + b"\x00"])) is None


def test_slice_batch_of_large_records_is_left_to_parse_datum(make_datum: MakeDatum) -> None:
    image = np.zeros((1, 1, MAX_RECORD_BYTES), np.uint8)
    assert CanonicalLayout(image.shape).slice_batch(as_views([make_datum(image)])) is None
