"""Makes up batches, for nets whose records are not at hand: random bytes as images, whole numbers as labels.

The batch reader that stands in for all others if a user asks for it. What follows a record's being read is as ever:
order, shards, transformation, batches ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dtrain.data.batch import Batch, Shape
from dtrain.data.batch_reader import BatchReader
from dtrain.data.hash64 import Purpose, draw_below, hash64
from dtrain.data.image_batch import put_images
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer

NUM_RECORDS = 10_000  # of an epoch, where there are no data that say how many they are
_NUM_STARTS = 1 << 16
_NUM_DEFAULT_VALUES = 2
_FRACTION_BITS = 24


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The wish that records be made up. shapes: of their parts, before they are transformed; (): as of the data.

    An image is one part, its label no other. Of rows each array is one, and those not given are numbers.
    """

    shapes: tuple[Shape, ...] = ()


class SyntheticReader(BatchReader):
    """Make up records of the shapes `stored`, one for each array of a batch.

    Arguments:
        stored: shapes of a record's parts. With a transformer the first is (C, H, W), bytes 0 … 255 that it
            transforms; without one it holds numbers 0 ≤ v < 1. All others hold whole numbers, by default 0 and 1.
        sampler: the order of records, which knows how many there are.
    A record is a function of (seed, number): a piece of a tape of random values, which begins at a place of its own.
    So a batch costs what transforming it costs, and the records take little memory.
    """

    def __init__(
        self, stored: Sequence[Shape], sampler: Sampler, transformer: Transformer | None = None, seed: int = 0
    ) -> None:
        self.num_records = sampler.num_records
        self._stored = tuple(stored)
        first = transformer.output_shape(self._stored[0]) if transformer else self._stored[0]
        self.shapes = (first, *self._stored[1:])
        self._sampler = sampler
        self._transformer = transformer
        self._seed = seed
        self._num_values = dict.fromkeys(range(1, len(self._stored)), _NUM_DEFAULT_VALUES)
        self._tape: NDArray[np.uint32] | None = None

    def limit_values(self, which: int, num_values: int) -> None:
        """Let array `which` hold whole numbers 0 … num_values − 1; to be called before anything is read."""
        self._num_values[which] = num_values

    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        """Fill `batch` with the records at `positions`, int64 (N,)."""
        batch.epochs[:], batch.indices[:] = self._sampler.records(positions)
        for which, out in enumerate(batch.arrays):
            starts = self._starts(which, batch.indices)
            if which == 0 and self._transformer:
                leaves_images = self.stored_shape is not None
                put_images(batch, self._images(starts), self._stored[0], self._transformer, leaves_images)
                continue
            bits = sliding_window_view(self._words(), math.prod(out.shape[1:]))[starts].reshape(out.shape)
            values = np.ldexp((bits >> 32 - _FRACTION_BITS).astype(np.float64), -_FRACTION_BITS)
            out[...] = np.floor(values * self._num_values[which]) if which in self._num_values else values

    def leave_images(self) -> Transformer | None:
        """Leave images as bytes, if there are any."""
        if self._transformer:
            self.stored_shape = self._stored[0]
        return self._transformer

    def reseed(self, seed: int) -> None:
        """Take order, values and random transformations from `seed`."""
        self._sampler.reseed(seed)
        if self._transformer:
            self._transformer.seed = seed
        self._seed, self._tape = seed, None

    def name_record(self, index: int) -> str:
        """Return the record's number."""
        return f"made-up record {index}"

    def close(self) -> None:
        """Let go of the tape."""
        self._tape = None

    def _images(self, starts: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        tape, shape = self._words().view(np.uint8), self._stored[0]
        size = math.prod(shape)
        return [tape[4 * start : 4 * start + size].reshape(shape) for start in starts.tolist()]

    def _starts(self, which: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the words of the tape at which array `which` of each record begins."""
        return draw_below(hash64(self._seed, Purpose.MADE_UP_PLACE, which, indices), _NUM_STARTS)

    def _words(self) -> NDArray[np.uint32]:
        """Return the tape; it is made when something is read, since many a net is only looked at."""
        if self._tape is None:
            num_words = _NUM_STARTS + max(math.prod(shape) for shape in self._stored)
            numbers = np.arange((num_words + 1) // 2)
            self._tape = hash64(self._seed, Purpose.MADE_UP_VALUE, 0, numbers).view(np.uint32)
        return self._tape
