"""What every reader of batches is to a loader: it fills a batch with the records at given positions.

    source of records ──> batch reader ──> loader (thread) ──> data layer

A reader knows the order of records (a sampler) and what is done to them (a transformer), and nothing of
threads, ranks or batches ahead. Each kind of data layer has one, in a file of its own: datum_reader.py …
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Batch, Shape
from dtrain.data.transformer import Transformer


class BatchReader(ABC):
    """Reads batches, from any thread, by one thread at a time.

    num_records: of one epoch, at least 1. shapes: of one record in each of a batch's arrays, known before
    anything is read; where records differ in size, of the first one, and `read` fits the batch to its own.
    stored_shape: (C, H, W) of the first image if images are left as they are stored, else None.
    """

    num_records: int
    shapes: tuple[Shape, ...]
    stored_shape: Shape | None = None

    @abstractmethod
    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        """Fill `batch` with the records at `positions`, int64 (N,), of the endless stream of all epochs.

        What is random about a record is a function of (seed, epoch, record), so that it depends neither on the
        number of ranks nor on restarts. Raises DataError that names the record when one can't be read.
        """

    def leave_images(self) -> Transformer | None:
        """Leave images as they are stored from now on, for somebody else to transform; return by what.

        Only where those of a batch are bytes and of one size: other batches are transformed all the same, which
        Batch.windows says. None, the default: there are no images that could be left.
        """
        return None

    @abstractmethod
    def reseed(self, seed: int) -> None:
        """Take the order of records and the random transformations from `seed`."""

    @abstractmethod
    def name_record(self, index: int) -> str:
        """Return, for messages, which record `index` (0 … num_records − 1) is: record "00000007" of lmdb/train."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is read; a second call does nothing."""
