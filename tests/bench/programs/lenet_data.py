"""An LMDB of MNIST's shape and size with random pixels, for timing: the arithmetic does not depend on them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb

NUM_RECORDS = 60000


def write_records(path: Path) -> None:
    """Write NUM_RECORDS Datums of 1x28x28 bytes with labels 0 … 9."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (NUM_RECORDS, 1, 28, 28), np.uint8)
    labels = random.integers(0, 10, NUM_RECORDS)
    write_lmdb(path, ((b"%08d" % i, encode_datum(images[i], int(labels[i]))) for i in range(NUM_RECORDS)))


if __name__ == "__main__":
    write_records(Path(sys.argv[1]))
