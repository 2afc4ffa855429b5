"""Tests of data/loader.py for those who take several batches at a time and count them later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.datum_reader import DatumReader
from dtrain.data.errors import DataError
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.loader import Loader
from dtrain.data.sampler import Sampler, Shard
from dtrain.data.transformer import Transformer, TransformSpec

# Positions of a stream of ten records: (epoch, index).
STREAM = [(position // 10, position % 10) for position in range(100)]


@pytest.fixture
def path(make_lmdb: Callable[..., str], make_datum: Callable[..., bytes], images: NDArray[np.uint8]) -> str:
    """A database of the ten images."""
    return make_lmdb([make_datum(image) for image in images])


def make_reader(path: str, spec: TransformSpec | None = None) -> DatumReader:
    source = LmdbSource(path)
    return DatumReader(source, Sampler(len(source)), Transformer(spec or TransformSpec(), train=True))


def test_take_ready_returns_a_batch_only_if_there_is_one(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    may_read = threading.Semaphore(0)
    read_batch = DatumReader.read

    def read_when_told(reader: DatumReader, positions: NDArray[np.int64], batch: Batch) -> None:
        assert may_read.acquire(timeout=60)
        read_batch(reader, positions, batch)

    monkeypatch.setattr(DatumReader, "read", read_when_told)
    loader = Loader(make_reader(path), 4, Shard())
    assert loader.take_ready() is None  # not started
    loader.start()
    assert loader.take_ready() is None
    may_read.release()
    first = loader.take()
    assert loader.take_ready() is None
    assert (loader.num_batches, first.indices.tolist()) == (0, [0, 1, 2, 3])
    loader.consume(first.indices)
    assert loader.num_batches == 1
    assert loader.name_item(2).startswith('record "00000002" of ')
    waited_s = loader.waited_s
    may_read.release(100)
    while (second := loader.take_ready()) is None:
        time.sleep(0.001)
    assert second.indices.tolist() == [4, 5, 6, 7]
    assert loader.waited_s == waited_s
    loader.close()


def test_take_of_several_batches_at_a_time_leaves_as_many_to_the_reader(path: str) -> None:
    loader = Loader(make_reader(path), 4, Shard(), prefetch=1, num_in_use=3)
    assert loader.num_buffers == 4
    loader.start()
    held = [loader.take() for _ in range(3)]
    for number in range(10):  # the fourth goes round
        batch = loader.take()
        assert (
            list(zip(batch.epochs, batch.indices, strict=True)) == STREAM[4 * number + 12 : 4 * number + 16]
        )
        loader.put_back(batch)
    for number, batch in enumerate(held):
        assert list(zip(batch.epochs, batch.indices, strict=True)) == STREAM[4 * number : 4 * number + 4]
    loader.close()


def test_take_ready_leaves_failures_and_the_end_to_take(
    make_lmdb: Callable[..., str], make_datum: Callable[..., bytes], images: NDArray[np.uint8]
) -> None:
    path = make_lmdb([make_datum(images[0]), make_datum(images[1])[:20]])
    with_bad = Loader(make_reader(path), 1, Shard())
    with_bad.start(first_position=1)
    with pytest.raises(DataError):
        with_bad.take()
    assert with_bad.take_ready() is None
    with pytest.raises(DataError):
        with_bad.take()
    with_bad.start(num_batches=0)
    with pytest.raises(StopIteration):
        with_bad.take()
    assert with_bad.take_ready() is None
    with pytest.raises(StopIteration):
        with_bad.take()
    with_bad.close()


def test_batch_bytes_are_those_of_the_arrays(path: str) -> None:
    reader = make_reader(path, TransformSpec(crop_size=2))
    loader = Loader(reader, 4, Shard())
    assert loader.batch_bytes == 256 + 256  # 4 images of 4 x 2 x 2 x 2 bytes, and 4 labels
    reader.leave_images()
    assert loader.batch_bytes == 256 + 256 + 256  # and 4 windows
    loader.start()
    batch = loader.take()
    assert batch.windows is not None
    assert batch.block.nbytes == loader.batch_bytes
    loader.close()
