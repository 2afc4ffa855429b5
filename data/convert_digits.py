"""Converts scikit-learn's handwritten digits to a train and a test LMDB: real data that needs no download.

What `make demo` runs; the databases are what configs/digits reads. The only module that imports scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dtrain.data.convert_mnist import encode_records
from dtrain.data.errors import DataError
from dtrain.data.lmdb_writer import write_splits

TEST_EVERY = 5
_PIXEL_SCALE = 15  # pixels are 0 … 16, written as bytes 0 … 240


def convert_digits(out: str | Path) -> dict[str, int]:
    """Write the 1,797 images of 8x8 pixels to OUT/train (1,437) and OUT/test (360), both or none.

    Every fifth record (index mod 5 = 0) is for testing, always the same ones. Each Datum is 1x8x8; a pixel's
    byte is 15 times its value, so scale: 0.00416667 (1/240) gives 0 … 1.
    Result: the number of records of each. Raises DataError when scikit-learn is missing or an output exists.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("convert-digits: scikit-learn must be installed; pip install scikit-learn") from None
    digits = load_digits()
    images = (digits.images * _PIXEL_SCALE).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    is_test = np.arange(len(images)) % TEST_EVERY == 0
    splits = {
        name: encode_records(images[rows], labels[rows])
        for name, rows in (("train", ~is_test), ("test", is_test))
    }
    return write_splits(out, splits)
