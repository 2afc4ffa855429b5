"""Tests of data/loader.py."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

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
