"""Batches on their way to a GPU: from pinned memory, by a stream of their own, while the GPU computes.

Between the loader and the tops of a reading layer. There is room on the device for two batches. One is being used;
the next, if the reader has it, is copied meanwhile. Images travel as bytes and are transformed there (transform.py),
unless the reader had to do that (data/batch.py).

Who waits for whom: the compute stream for the copy of what it is to read; a copy for what the compute stream had to
do with the batch before it in the same place; the reader, for its batch, until the copy is over. The host waits only
where it is two batches ahead of the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.cupy.transform import ImageTransform
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.feed import FEEDS, Feed
from dtrain.data.batch import Batch, Shape
from dtrain.data.batch import Place as ArrayPlace
from dtrain.data.batch_reader import BatchReader
from dtrain.data.loader import Loader

_NUM_PLACES = 2


class _Place:
    """Room on the device for one batch, and when it may be read and written.

    arrays, windows, channels_last: as a Batch has them, on the device. indices: which records they are. batch: of the
    loader, while it is being copied. copied: an event behind that. used: one behind all that reads the arrays.
    The bytes of a batch lie together, so that one copy takes them all.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._block: Any = cupy.empty(0, np.uint8)
        self._layout: tuple[ArrayPlace, ...] = ()
        self.arrays: list[Any] = []
        self.windows: Any = None
        self.channels_last = False
        self.indices: NDArray[np.int64] = np.empty(0, np.int64)
        self.batch: Batch | None = None
        self.copied, self.used = (cupy.cuda.Event(disable_timing=True) for _ in range(2))

    def load(self, batch: Batch, stream: Any) -> None:
        """Copy `batch` on `stream`, after all that was to be done with what is here."""
        self.batch, self.indices, self.channels_last = batch, batch.indices.copy(), batch.channels_last
        if self._layout != batch.places:
            self._lay_out(batch)
        stream.wait_event(self.used)
        self._block.set(batch.block, stream=stream)
        self.copied.record(stream)

    def _lay_out(self, batch: Batch) -> None:
        if self._block.shape != batch.block.shape:
            self._block = self._cupy.empty(batch.block.shape, np.uint8)
        self._layout = batch.places
        self.arrays = [place.of(self._block) for place in batch.places]
        self.windows = None if batch.windows is None else self.arrays.pop()
        # What lay in new memory before may still be in use: it was the compute stream's.
        self.used.record(self._cupy.cuda.get_current_stream())

    def let_go(self, loader: Loader) -> None:
        """Give the batch back to its reader, when its copy is over."""
        if self.batch is not None:
            self.copied.synchronize()
            loader.put_back(self.batch)
            self.batch = None


@FEEDS.register("device")
class StagedFeed(Feed):
    """Puts batches into the tops of one layer, on the current stream of the GPU that is current when this is made.

    What the tops get are the bits that the host would give them. This keeps their memory where it is while their
    shapes stay; nets must do so too (core/net/memory_sharing.py).
    """

    num_in_use: ClassVar[int] = _NUM_PLACES

    def __init__(self, engine: Engine, reader: BatchReader) -> None:
        super().__init__(engine, reader)
        self._cupy = engine.xp
        self._device = int(self._cupy.cuda.runtime.getDevice())
        self._transformer = reader.leave_images()
        self._transforms: dict[Shape, ImageTransform] = {}
        self._stream: Any = None  # it and the places are made with the first batch
        self._places: list[_Place] = []
        self._turn = 0
        self._staged: _Place | None = None

    def allocate(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return pinned memory, from any thread."""
        with self._cupy.cuda.Device(self._device):
            return np.ndarray(num_bytes, np.uint8, self._cupy.cuda.alloc_pinned_memory(max(num_bytes, 1)))

    def next(self, loader: Loader, tops: Sequence[Blob]) -> None:
        """Consume the next batch; have the one after it copied, if stage_ahead is not left to others."""
        self._let_go_copied(loader)
        place = self._staged or self._stage(loader.take(), loader)
        self._staged = None
        loader.consume(place.indices)
        stream = self._cupy.cuda.get_current_stream()
        stream.wait_event(place.copied)
        for number, (blob, values) in enumerate(zip(tops, place.arrays, strict=False)):
            if number == 0 and place.windows is not None:
                self._transform(blob, place)
            else:
                blob.reshape(*values.shape)
                blob.write_data(self._engine.memory)[...] = values
        place.used.record(stream)
        if self.stages_ahead:
            self.stage_ahead(loader)

    def stage_ahead(self, loader: Loader) -> None:
        """Have the next batch copied, unless it is, or somebody would have to wait for that."""
        self._let_go_copied(loader)
        if self._staged is None and self._places and self._places[self._turn].batch is None:
            batch = loader.take_ready()
            if batch is not None:
                self._staged = self._stage(batch, loader)

    def drop(self) -> None:
        """Forget what was copied ahead, once nothing is being copied from memory that the reader will fill again."""
        for place in self._places:
            if place.batch is not None:
                place.copied.synchronize()
                place.batch = None
        self._staged = None

    def device_bytes(self, loader: Loader) -> int:
        """Return the bytes of the places on the device."""
        return _NUM_PLACES * loader.batch_bytes

    def _transform(self, top: Blob, place: _Place) -> None:
        images = place.arrays[0]
        _, *sizes = images.shape
        shape = (sizes[2], *sizes[:2]) if place.channels_last else tuple(sizes)
        assert self._transformer is not None, "images were left as they are stored, unasked"
        if shape not in self._transforms:
            self._transforms[shape] = ImageTransform(self._cupy, self._transformer, shape)
        top.reshape(len(images), *self._transformer.output_shape(shape))
        out = top.write_data(self._engine.memory)
        self._transforms[shape].run(images, place.windows, out, place.channels_last)

    def _stage(self, batch: Batch, loader: Loader) -> _Place:
        if not self._places:
            self._stream = self._cupy.cuda.Stream(non_blocking=True)
            self._places = [_Place(self._cupy) for _ in range(_NUM_PLACES)]
        place = self._places[self._turn]
        self._turn = (self._turn + 1) % _NUM_PLACES
        place.let_go(loader)
        place.load(batch, self._stream)
        return place

    def _let_go_copied(self, loader: Loader) -> None:
        for place in self._places:
            if place.batch is not None and place.copied.done:
                place.let_go(loader)
