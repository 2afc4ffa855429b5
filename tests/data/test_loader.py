"""Tests of data/loader.py."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data import loader as loader_module
from dtrain.data.batch import Batch
from dtrain.data.batch_reader import BatchReader
from dtrain.data.datum_reader import DatumReader
from dtrain.data.errors import DataError
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.loader import Deal, Loader
from dtrain.data.sampler import Sampler, Shard
from dtrain.data.transformer import Transformer, TransformSpec

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., Loader]
# Positions of a stream of ten records: (epoch, index).
STREAM = [(position // 10, position % 10) for position in range(400)]


@pytest.fixture
def path(make_lmdb: Callable[..., str], make_datum: Callable[..., bytes], images: NDArray[np.uint8]) -> str:
    """A database of the ten images, labelled 0 … 9."""
    return make_lmdb([make_datum(image, label) for label, image in enumerate(images)])


@pytest.fixture
def make_loader(path: str) -> Make:
    """Return a function that makes a loader over the ten images."""

    def make(
        batch_size: int = 4,
        shard: Shard | None = None,
        deal: Deal = "records",
        prefetch: int = 4,
        shuffle: bool = False,
        spec: TransformSpec | None = None,
    ) -> Loader:
        source = LmdbSource(path)
        sampler = Sampler(len(source), seed=3, shuffle=shuffle)
        transformer = Transformer(spec or TransformSpec(), train=True, seed=3)
        return Loader(
            DatumReader(source, sampler, transformer), batch_size, shard or Shard(), deal, prefetch, "mnist"
        )

    return make


def read_stream(loader: Loader, num_batches: int) -> list[tuple[int, int]]:
    stream: list[tuple[int, int]] = []
    for _ in range(num_batches):
        batch = loader.next()
        stream += zip(batch.epochs.tolist(), batch.indices.tolist(), strict=True)
    return stream


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_next_returns_the_stream_in_order(
    make_loader: Make, images: NDArray[np.uint8], prefetch: int
) -> None:
    loader = make_loader(prefetch=prefetch)
    loader.start()
    for number in range(30):
        batch = loader.next()
        expected = STREAM[4 * number : 4 * number + 4]
        indices = [index for _, index in expected]
        assert batch.epochs.tolist() == [epoch for epoch, _ in expected]
        assert batch.indices.tolist() == batch.labels.tolist() == indices
        assert np.array_equal(batch.data, images[indices])
    assert loader.num_batches == 30
    loader.close()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
def test_next_on_several_ranks_is_one_ranks_batch_dealt_out(
    make_loader: Make, world_size: int, shuffle: bool
) -> None:
    spec = TransformSpec(mirror=True, crop_size=2)
    alone = make_loader(batch_size=4 * world_size, shuffle=shuffle, spec=spec)
    ranks = [
        make_loader(shard=Shard(rank, world_size), shuffle=shuffle, spec=spec) for rank in range(world_size)
    ]
    for loader in (alone, *ranks):
        loader.start()
    for _ in range(9):
        whole = alone.next()
        for rank, loader in enumerate(ranks):
            part = loader.next()
            assert np.array_equal(part.data, whole.data[rank::world_size])
            assert np.array_equal(part.labels, whole.labels[rank::world_size])
    for loader in (alone, *ranks):
        loader.close()


def test_next_of_batches_dealt_whole_returns_every_second(make_loader: Make) -> None:
    loader = make_loader(shard=Shard(1, 2), deal="batches")
    loader.start(first_position=3)
    assert read_stream(loader, 2) == STREAM[7:11] + STREAM[15:19]
    loader.close()


def test_start_again_drops_what_was_read_ahead(make_loader: Make) -> None:
    loader = make_loader()
    loader.start()
    assert read_stream(loader, 3) == STREAM[:12]
    loader.start(first_position=25)
    assert read_stream(loader, 10) == STREAM[25:65]
    loader.start(first_position=1)
    assert read_stream(loader, 1) == STREAM[1:5]
    loader.close()


def test_start_at_a_place_reads_what_an_undisturbed_run_reads(make_loader: Make) -> None:
    spec = TransformSpec(mirror=True, crop_size=2)
    undisturbed, resumed = make_loader(shuffle=True, spec=spec), make_loader(shuffle=True, spec=spec)
    undisturbed.start()
    for _ in range(6):
        undisturbed.next()
    resumed.start(first_position=6 * 4)
    for _ in range(6):
        assert np.array_equal(undisturbed.next().data, resumed.next().data)
    undisturbed.close()
    resumed.close()


@pytest.mark.parametrize("num_batches", [0, 1, 7])
def test_next_after_the_last_batch_raises_stop_iteration(make_loader: Make, num_batches: int) -> None:
    loader = make_loader()
    loader.start(num_batches=num_batches)
    assert read_stream(loader, num_batches) == STREAM[: 4 * num_batches]
    with pytest.raises(StopIteration):
        loader.next()
    loader.start(num_batches=1)
    assert read_stream(loader, 1) == STREAM[:4]
    loader.close()


def test_next_batch_stays_untouched_until_the_following_next(
    make_loader: Make, images: NDArray[np.uint8]
) -> None:
    loader = make_loader(prefetch=1)
    loader.start()
    for number in range(10):
        batch = loader.next()
        threading.Event().wait(0.005)  # the reader runs as far as it can
        assert np.array_equal(batch.data, images[[index for _, index in STREAM[4 * number : 4 * number + 4]]])
    loader.close()


def test_next_meeting_a_bad_record_raises_naming_it(
    make_lmdb: Callable[..., str], make_datum: Callable[..., bytes], images: NDArray[np.uint8]
) -> None:
    path = make_lmdb([*(make_datum(image) for image in images[:5]), make_datum(images[5].reshape(2, 4, 3))])
    source = LmdbSource(path)
    loader = Loader(DatumReader(source, Sampler(6), Transformer(TransformSpec(), train=True)), 2, Shard())
    loader.start()
    loader.next()
    loader.next()
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            loader.next()
        assert caught.value.problem == (
            f'{path}: record "00000005": size must be 2x3x4 like that of {path}: record "00000004" '
            "in the same batch, got 2x4x3; give all images one size, or batch_size: 1"
        )
    loader.start()
    assert loader.next().indices.tolist() == [0, 1]
    loader.close()


def test_loader_before_start_knows_its_shape_and_has_no_thread(make_loader: Make) -> None:
    before = threading.active_count()
    loader = make_loader(spec=TransformSpec(crop_size=3))
    assert (loader.shapes, loader.batch_size, loader.num_records) == (((2, 3, 3), ()), 4, 10)
    assert threading.active_count() == before
    with pytest.raises(AssertionError, match='layer "mnist" has not been started'):
        loader.next()
    loader.close()


def test_waited_s_counts_the_time_that_next_blocks(
    make_loader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = make_loader()
    assert loader.waited_s == 0
    read_batch = LmdbSource.read_batch

    def slow(self: LmdbSource, indices: list[int]) -> list[memoryview]:
        threading.Event().wait(0.05)
        return read_batch(self, indices)

    monkeypatch.setattr(LmdbSource, "read_batch", slow)
    loader.start(num_batches=3)
    read_stream(loader, 3)
    assert 0.12 <= loader.waited_s < 5
    loader.close()


class SilentReader(BatchReader):
    """A reader of ten records that reads nothing until it is told to."""

    num_records = 10
    shapes = ((),)

    def __init__(self, knows_records: bool = True) -> None:
        self.knows_records = knows_records
        self.may_read = threading.Event()

    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        if self.knows_records:
            batch.indices[:] = positions % 10
        assert self.may_read.wait(60)

    def reseed(self, seed: int) -> None:
        pass

    def name_record(self, index: int) -> str:
        return f'record "{index:08}" of db'

    def close(self) -> None:
        pass


class FakeQueue:
    """A prefetcher's get without a wait: it notes how long it was to wait and gives up, but for the last."""

    def __init__(self, num_silent: int, batch: Batch) -> None:
        self.timeouts_s: list[float] = []
        self._num_silent = num_silent
        self._batch = batch

    def get(self, timeout_s: float) -> Batch:
        self.timeouts_s.append(timeout_s)
        if len(self.timeouts_s) <= self._num_silent:
            raise TimeoutError
        return self._batch


@pytest.mark.parametrize(
    ("waited_s", "num_batches", "timeouts_s"),
    [(0, 0, [10, 10, 20, 40]), (100, 100, [10, 10, 20, 40]), (100, 10, [30, 30, 60, 120])],
)
def test_next_of_a_silent_reader_warns_ever_more_rarely(
    caplog: pytest.LogCaptureFixture, waited_s: float, num_batches: int, timeouts_s: list[float]
) -> None:
    loader, queue = Loader(SilentReader(), 4, Shard(1, 2), name="d"), FakeQueue(3, Batch(4, ((),)))
    loader.start(6)
    loader.waited_s, loader.num_batches = waited_s, num_batches
    # The reader's thread is at its first batch, whichever moment it is looked at.
    end = time.monotonic() + 60
    while not (loader._filling and loader._filling[0].indices[0] == 7):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)
    loader._wait(queue)  # type: ignore[arg-type]
    assert queue.timeouts_s == timeouts_s
    said = 'record "00000007" of db, or a record behind it in a batch of 4'
    assert caplog.messages == [
        f'layer "d": waiting {sum(timeouts_s[: count + 1])} s for {said}' for count in range(3)
    ]
    loader._reader.may_read.set()  # type: ignore[attr-defined]
    loader.close()


@pytest.mark.parametrize(
    ("knows_records", "said"),
    [(True, 'record "00000000" of db, or a record behind it in a batch of 4'), (False, "its reader")],
)
def test_next_of_a_silent_reader_goes_on_when_it_reads_at_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, knows_records: bool, said: str
) -> None:
    monkeypatch.setattr(loader_module, "PATIENCE_S", 0.01)
    reader = SilentReader(knows_records)
    loader = Loader(reader, 4, Shard(), name="d")

    def release(record: logging.LogRecord) -> bool:
        if record.getMessage().endswith(said):
            reader.may_read.set()
        return True

    caplog.handler.addFilter(release)
    loader.start()
    loader.next()
    assert reader.may_read.is_set()
    loader.close()


def test_close_ends_the_thread_and_closes_the_source(make_loader: Make) -> None:
    before = threading.active_count()
    loader = make_loader()
    loader.start()
    loader.next()
    loader.close()
    loader.close()
    assert threading.active_count() == before
    loader.start()
    with pytest.raises(AssertionError, match="is closed"):
        loader.next()
    loader.close()


@pytest.mark.parametrize(("batch_size", "prefetch", "complaint"), [(0, 4, "batch_size"), (4, 0, "prefetch")])
def test_loader_with_sizes_out_of_range_says_so(
    make_loader: Make, batch_size: int, prefetch: int, complaint: str
) -> None:
    with pytest.raises(DataError, match=f'^layer "mnist": {complaint} must be at least 1, got 0$'):
        make_loader(batch_size=batch_size, prefetch=prefetch)


def test_interpreter_with_a_running_loader_ends_at_once_and_cleanly(path: str) -> None:
    program = (
        "from dtrain.data.datum_reader import DatumReader\n"
        "from dtrain.data.lmdb_source import LmdbSource\n"
        "from dtrain.data.loader import Loader\n"
        "from dtrain.data.sampler import Sampler, Shard\n"
        "from dtrain.data.transformer import Transformer, TransformSpec\n"
        f"source, transformer = LmdbSource({path!r}), Transformer(TransformSpec(), train=True)\n"
        "loader = Loader(DatumReader(source, Sampler(10), transformer), 4, Shard())\n"
        "loader.start()\n"
        "for _ in range(50): loader.next()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
