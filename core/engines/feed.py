"""How batches come from a loader to the tops of the layer that reads: on the host they are copied.

Between data/ and the net. Where tops lie in a GPU's memory, cupy/staging.py does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.registry import Registry
from dtrain.data.batch import allocate_plain
from dtrain.data.batch_reader import BatchReader
from dtrain.data.loader import Loader


class Feed:
    """Puts one batch after the other into the tops of one layer, whose engine computes on the host.

    num_in_use: batches of the loader that it holds at a time. stages_ahead: whether `next` does what stage_ahead
    does; False where somebody else calls that, when the host has nothing better to do.
    """

    num_in_use: ClassVar[int] = 1
    stages_ahead = True

    def __init__(self, engine: Engine, reader: BatchReader) -> None:
        self._engine = engine

    def allocate(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return memory on the host for a batch."""
        return allocate_plain(num_bytes)

    def next(self, loader: Loader, tops: Sequence[Blob]) -> None:
        """Consume the next batch: the tops take its shape and values. There may be fewer of them than arrays.

        Raises what loader.take() raises.
        """
        for blob, values in zip(tops, loader.next().arrays, strict=False):
            blob.reshape(*values.shape)
            blob.write_data(self._engine.memory)[...] = self._engine.xp.asarray(values)

    def stage_ahead(self, loader: Loader) -> None:
        """Begin with the batch after the one that is in the tops, as far as nobody has to wait for that."""

    def drop(self) -> None:
        """Forget what was read ahead and not consumed; to be called before the loader starts, or closes."""

    def device_bytes(self, loader: Loader) -> int:
        """Return how many bytes on the device this takes beside the tops."""
        return 0


FEEDS: Registry[type[Feed]] = Registry("memory of tops")
FEEDS.register("host")(Feed)
FEEDS.register_module("device", "dtrain.core.engines.cupy.staging")


def make_feed(engine: Engine, reader: BatchReader) -> Feed:
    """Return what feeds the tops of a layer of `engine`; it may have `reader` leave images as they are stored."""
    return FEEDS["device" if engine.memory.has_addresses else "host"](engine, reader)
