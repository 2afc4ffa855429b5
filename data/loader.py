"""The prefetching loader: what a data layer asks for its batches.

The last stage of data/, the first of the net's forward pass. One reader thread keeps batches ready while the
net computes, and the loader measures how long the net had to wait for it all the same.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Allocate, Batch, Shape, allocate_plain, lay_out
from dtrain.data.batch_reader import BatchReader
from dtrain.data.errors import DataError
from dtrain.data.prefetcher import Prefetcher
from dtrain.data.sampler import Shard

log = logging.getLogger(__name__)

Deal = Literal["records", "batches"]

# Silence for so long is worth a warning, or for so many times the mean wait where readers are always slow.
PATIENCE_S = 10.0
_NUM_MEAN_WAITS = 3
_NOTHING_YET = -1  # in Batch.indices, before the reader knows what it reads


class Loader:
    """Read this rank's batches in a thread of their own, `prefetch` of them ahead.

    Arguments:
        reader: what reads them; used by this loader's thread alone, and closed by close().
        batch_size: records of a batch of this rank, >= 1.
        shard: this rank's share.
        deal: "records" (TRAIN) or "batches" (TEST), see Shard.
        prefetch: batches to keep ready, >= 1.
        name: of the data layer, for messages and the thread.
        num_in_use: batches that whoever takes them holds at a time, >= 1.
        allocate: gives the memory of batches, as for Batch.
    num_records: of one epoch, over all ranks. shapes: of one record in each array of a batch, known before start().
    num_buffers: batches in memory: those that can be ready, and those in use. batch_bytes: of each one's block.
    waited_s: seconds that next() and take() have waited so far, over all starts.
    num_batches: batches that were consumed so far, over all starts.
    Raises DataError when batch_size or prefetch is out of range.
    """

    def __init__(
        self,
        reader: BatchReader,
        batch_size: int,
        shard: Shard,
        deal: Deal = "records",
        prefetch: int = 4,
        name: str = "data",
        num_in_use: int = 1,
        allocate: Allocate = allocate_plain,
    ) -> None:
        for word, value in (("batch_size", batch_size), ("prefetch", prefetch)):
            if value < 1:
                raise DataError(f'layer "{name}": {word} must be at least 1, got {value}')
        self.name = name
        self.batch_size = batch_size
        self.num_records = reader.num_records
        self.shapes: tuple[Shape, ...] = reader.shapes
        self.waited_s = 0.0
        self.num_batches = 0
        self._reader = reader
        self._deal = {"records": shard.deal_records, "batches": shard.deal_batches}[deal]
        self.num_buffers = prefetch + num_in_use
        self._allocate = allocate
        self._buffers: list[Batch] = []
        self._prefetcher: Prefetcher[Batch] | None = None
        self._current: Batch | None = None
        self._consumed: NDArray[np.int64] | None = None  # which records the last batch had
        self._filling: list[Batch] = []

    @property
    def batch_bytes(self) -> int:
        """Bytes of a batch's block, where records have the size of the first one."""
        kinds: list[tuple[Shape, np.dtype[Any]]] = [
            ((self.batch_size, *shape), np.dtype(np.float32)) for shape in self.shapes
        ]
        stored = self._reader.stored_shape
        if stored is None:
            return lay_out(kinds)[1]
        kinds[0] = ((self.batch_size, *stored), np.dtype(np.uint8))
        return lay_out(kinds, num_windows=self.batch_size)[1]

    def name_item(self, item: int) -> str:
        """Return, for messages, which record is at place `item` of the batch that was consumed last."""
        assert self._consumed is not None, f'loader of layer "{self.name}" has no batch'
        return self._reader.name_record(int(self._consumed[item]))

    def reseed(self, seed: int) -> None:
        """Take order and random transformations from `seed` from the next start() on; stops what is read now."""
        self._stop()
        self._reader.reseed(seed)

    def start(self, first_position: int = 0, num_batches: int | None = None) -> None:
        """Begin to read at a global record position, of all ranks together; what was read before is dropped.

        Arguments:
            first_position: >= 0; after k iterations of N ranks with batch_size b it is k·N·b.
            num_batches: how many to read, or None for no end.
        """
        self._stop()
        if not self._buffers:
            shapes = self.shapes
            if self._reader.stored_shape is not None:
                shapes = ((0,), *shapes[1:])  # the reader sees in which order channels lie, and makes room
            self._buffers = [Batch(self.batch_size, shapes, self._allocate) for _ in range(self.num_buffers)]

        def fill(batch_index: int, batch: Batch) -> None:
            batch.indices[0] = _NOTHING_YET
            filling[:] = [batch]
            reader.read(deal(first_position, batch_index, batch_size), batch)

        # The thread holds these and not the loader, which can so be collected with its thread running.
        reader, deal, batch_size = self._reader, self._deal, self.batch_size
        filling = self._filling = []
        self._prefetcher = Prefetcher(fill, self._buffers, num_batches, f"reader of {self.name}")

    def next(self) -> Batch:
        """Consume and return the next batch; its arrays are valid until the next call of next(), start() or close().

        Raises what take() raises.
        """
        if self._current is not None:
            self.put_back(self._current)
            self._current = None
        self._current = self.take()
        self.consume(self._current.indices)
        return self._current

    def take(self) -> Batch:
        """Wait for the next batch and return it; it is the caller's until put_back(), start() or close().

        Warns, ever more rarely, while the reader is silent for long. Raises DataError that names database and
        record when one is corrupt, compressed or of another size; StopIteration after the last of start()'s
        num_batches.
        """
        assert self._prefetcher is not None, f'loader of layer "{self.name}" has not been started'
        began = time.perf_counter()
        try:
            return self._wait(self._prefetcher)
        finally:
            self.waited_s += time.perf_counter() - began

    def take_ready(self) -> Batch | None:
        """Return what take() would return at once, else None: what it would raise is left to take()."""
        if self._prefetcher is None or not self._prefetcher.num_ready:
            return None
        try:
            return self._prefetcher.get(0)
        except Exception:  # put by for the next call
            return None

    def consume(self, indices: NDArray[np.int64]) -> None:
        """Count a batch that take() or take_ready() returned, by the indices of its records: the net has it now."""
        self._consumed = indices.copy()
        self.num_batches += 1

    def put_back(self, batch: Batch) -> None:
        """Hand back a batch that take() or take_ready() returned, to be filled again."""
        assert self._prefetcher is not None, f'loader of layer "{self.name}" has not been started'
        self._prefetcher.put_back(batch)

    def _wait(self, prefetcher: Prefetcher[Batch]) -> Batch:
        """Return the next batch; say what the reader is at when it takes long, and again each time that doubles."""
        waited_s = 0.0
        patience_s = max(PATIENCE_S, _NUM_MEAN_WAITS * self.waited_s / max(self.num_batches, 1))
        while True:
            try:
                return prefetcher.get(patience_s - waited_s)
            except TimeoutError:
                waited_s = patience_s
                log.warning('layer "%s": waiting %.0f s for %s', self.name, waited_s, self._name_awaited())
                patience_s *= 2

    def _name_awaited(self) -> str:
        """Return, for messages, what the reader is at: the batch that begins with a record."""
        index = int(self._filling[0].indices[0]) if self._filling else _NOTHING_YET
        if index == _NOTHING_YET:
            return "its reader"
        return f"{self._reader.name_record(index)}, or a record behind it in a batch of {self.batch_size}"

    def close(self) -> None:
        """Stop the reader thread, wait for its end and close what it reads; a second call does nothing."""
        self._stop()
        self._reader.close()

    def _stop(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.stop()
        self._prefetcher = None
        self._current = self._consumed = None
