"""Layers that read records: what the Data layer and its kin share.

Such a layer owns a loader (dtrain.data), whose reader thread keeps batches ready. The solver tells it where to
start: at a record position of the endless stream that all ranks read together.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.feed import Feed, make_feed
from dtrain.core.layers.layer import Arity, InPlace, Layer
from dtrain.data.batch_reader import BatchReader
from dtrain.data.loader import Loader
from dtrain.data.synthetic_reader import SyntheticReader


class ReadingLayer(Layer):
    """A layer without bottoms whose tops are the arrays of a batch: images and labels, mostly.

    Subclasses call make_loader in setup. They may have fewer tops than a batch has arrays. made_up: what makes
    up records in place of those read, if the user asks for it.
    """

    bottoms = Arity(0, 0)
    tops = Arity(1, 2)
    in_place = InPlace.NO
    has_backward = False

    loader: Loader
    feed: Feed
    made_up: SyntheticReader | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._first_position = 0
        self._num_batches = 0
        self.started = False

    def make_loader(self, reader: BatchReader, batch_size: int, prefetch: int = 4) -> None:
        """Let `reader` read this rank's share, `prefetch` batches ahead. Raises DataError for numbers below 1."""
        context, self.feed = self.context, make_feed(self.engine, reader)
        self.loader = Loader(
            reader,
            batch_size,
            context.shard,
            context.deal,
            prefetch,
            self.name,
            self.feed.num_in_use,
            self.feed.allocate,
        )

    def start(self, first_position: int = 0, num_batches: int | None = None) -> None:
        """Read on from record `first_position` of the common stream; at most num_batches batches if given."""
        self.feed.drop()
        self.loader.start(first_position, num_batches)
        self._first_position, self._num_batches, self.started = first_position, 0, True

    @property
    def position(self) -> int:
        """The place in the common stream behind what all ranks have consumed so far, in records."""
        return self._first_position + self._num_batches * self.records_per_pass

    @property
    def records_per_pass(self) -> int:
        """How many records all ranks together read for one forward pass."""
        return self.loader.batch_size * self.context.shard.world_size

    @property
    def num_records(self) -> int:
        """How many records an epoch has."""
        return self.loader.num_records

    @property
    def device_bytes(self) -> int:
        """Bytes on the device that batches take on their way, beside the tops; 0 where the host computes."""
        return self.feed.device_bytes(self.loader)

    @property
    def moves_tops(self) -> bool:
        """Whether each forward may write the tops elsewhere. On a GPU what reads them may be in a captured graph."""
        return not self.memory.has_addresses

    def name_item(self, item: int) -> str:
        """Return which record is at place `item` of the batch in the tops: record "00000007" of lmdb/train."""
        return self.loader.name_item(item)

    def reseed(self, seed: int) -> None:
        """Take the order of records and the random transformations from `seed`; before start."""
        self.loader.reseed(seed)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops the shapes of a batch: that of the records, until a batch says otherwise."""
        if not self._num_batches:
            for blob, shape in zip(top, self.loader.shapes, strict=False):
                blob.reshape(self.loader.batch_size, *shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Put the next batch into the tops; where records differ in size, they take the batch's shape."""
        if not self.started:
            self.start()
        try:
            self.feed.next(self.loader, top)
        except StopIteration:  # all that start() asked for (a test pass) is read; who comes now reads on
            self.start(self.position)
            self.feed.next(self.loader, top)
        self._num_batches += 1

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: there is no bottom."""

    def close(self) -> None:
        """Stop reading and close the source."""
        self.feed.drop()
        self.loader.close()
