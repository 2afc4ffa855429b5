"""Batches that come to a device ahead of time: in order, whichever of reader and net is slower, none too early."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.staging import StagedFeed
from dtrain.core.engines.cupy.transform import ImageTransform
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.net.memory_sharing import share_memory
from dtrain.data.datum_reader import DatumReader
from dtrain.data.errors import DataError
from tests.core.engines.cupy.reading_layers import (
    BATCH_SIZE,
    IMAGES,
    MIRRORED,
    NUM_BATCHES,
    NUM_RECORDS,
    PATIENCE_S,
    Read,
    assert_same,
    data,
    labels,
    make_layer,
    needs_codecs,
    raw,
    read,
    wait_until,
    write,
)
from tests.core.net_builder import make_net
from tests.played.cupy import REAL_GPU
from tests.played.graphs import Event, Stream
from tests.played.streams import Overtaken, Watch, watch_streams

pytestmark = pytest.mark.usefixtures("folder")
only_played = pytest.mark.skipif(bool(os.environ.get(REAL_GPU)), reason="of played streams")


@pytest.mark.parametrize("first", [0, 6, 29])
def test_start_drops_what_was_copied_ahead_and_reads_on_from_there(first: int) -> None:
    layer = make_layer(data("raw", MIRRORED))
    read(layer, 2)
    feed = layer.feed
    assert isinstance(feed, StagedFeed)
    wait_until(lambda: layer.loader._prefetcher.num_ready > 1)  # type: ignore[union-attr]
    wait_until(lambda: all(place.copied.done for place in feed._places))
    read(layer, 1)
    assert feed._staged is not None
    assert layer.position == 3 * BATCH_SIZE
    layer.start(first)
    assert layer.position == first
    found = read(layer, 5)
    assert layer.position == first + 5 * BATCH_SIZE
    layer.close()
    host = make_layer(data("raw", MIRRORED), "reference")
    host.start(first)
    assert_same(found, read(host, 5))
    host.close()


def test_start_of_few_batches_reads_on_after_them() -> None:
    layer = make_layer(data("raw"))
    layer.start(3, num_batches=2)
    assert labels(read(layer, 5)) == [(3 + i) % NUM_RECORDS for i in range(5 * BATCH_SIZE)]
    assert layer.position == 3 + 5 * BATCH_SIZE
    layer.close()


def test_reseed_between_starts_gives_the_host_s_order() -> None:
    found = []
    for engine in ("reference", "cupy"):
        layer = make_layer(data("raw", MIRRORED + "dtrain_param { shuffle: true }"), engine)
        read(layer, 2)
        layer.reseed(5)
        layer.start(4)
        found.append(read(layer))
        layer.close()
    assert_same(found[1], found[0])


def test_name_item_is_about_the_batch_in_the_tops_and_not_the_one_ahead() -> None:
    layer = make_layer(data("raw"))
    for number in range(3):
        read(layer, 1)
        wait_until(lambda: layer.loader._prefetcher.num_ready > 0)  # type: ignore[union-attr]
        for item in range(BATCH_SIZE):
            assert f'record "{number * BATCH_SIZE + item:08}"' in layer.name_item(item)
    layer.close()


def test_damaged_record_is_named_when_its_batch_is_due(folder: Path) -> None:
    records = [raw(image, i) for i, image in enumerate(IMAGES)]
    records[9] = records[9][:100]  # of the third batch
    write(folder / "damaged", records)
    messages = []
    for engine in ("reference", "cupy"):
        layer = make_layer(data("damaged"), engine)
        read(layer, 1)
        wait_until(lambda layer=layer: not layer.loader._prefetcher._thread.is_alive())
        assert labels(read(layer, 1)) == [4, 5, 6, 7]
        for _ in range(2):
            with pytest.raises(DataError) as caught:
                read(layer, 1)
            messages.append(str(caught.value))
        layer.close()
    assert 'damaged: record "00000009": ' in messages[0]
    assert len(set(messages)) == 1


def test_slow_reader_is_waited_for_where_its_batch_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(make_layer(data("raw", MIRRORED), "reference"))
    may_read, read_batch = threading.Semaphore(1), DatumReader.read

    def read_when_told(*args: Any) -> None:
        assert may_read.acquire(timeout=PATIENCE_S)
        read_batch(*args)

    monkeypatch.setattr(DatumReader, "read", read_when_told)
    layer = make_layer(data("raw", MIRRORED))
    feed = layer.feed
    assert isinstance(feed, StagedFeed)
    found = read(layer, 1)
    assert feed._staged is None  # nothing could be ready, and nobody waited for it
    waited_s = layer.loader.waited_s
    threading.Timer(0.05, lambda: may_read.release(100)).start()
    found += read(layer, NUM_BATCHES - 1)
    assert layer.loader.waited_s >= waited_s + 0.01
    assert layer.loader.num_batches == NUM_BATCHES
    assert_same(found, expected)
    layer.close()


def test_batch_ahead_is_copied_when_whoever_wants_to_do_so_says(watch: Watch) -> None:
    layer = make_layer(data("raw", MIRRORED))
    feed = layer.feed
    assert isinstance(feed, StagedFeed)
    feed.stages_ahead = False
    feed.stage_ahead(layer.loader)  # nothing to begin with before the first batch
    found = []
    for number in range(NUM_BATCHES):
        found += read(layer, 1)
        wait_until(lambda: layer.loader._prefetcher.num_ready > 0)  # type: ignore[union-attr]
        wait_until(lambda: all(place.copied.done for place in feed._places))
        assert feed._staged is None
        if number % 3:
            feed.stage_ahead(layer.loader)
            staged = feed._staged
            assert staged is not None
            feed.stage_ahead(layer.loader)  # again: it is there
            assert feed._staged is staged
    layer.close()
    assert_same(found, read(make_layer(data("raw", MIRRORED), "reference")))


@only_played
def test_copies_that_take_long_hold_their_batches_until_they_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Played copies read the host's memory when they are waited for: a batch handed back too early would be another.
    monkeypatch.setattr(Event, "done", False)
    layer = make_layer(data("raw", MIRRORED))
    found = []
    for _ in range(NUM_BATCHES):
        found += read(layer, 1)
        wait_until(lambda: layer.loader._prefetcher.num_ready > 0)  # type: ignore[union-attr]
    layer.close()
    assert_same(found, read(make_layer(data("raw", MIRRORED), "reference")))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return watch_streams(monkeypatch)


def read_ahead(layer: ReadingLayer) -> Read:
    """Read with each batch but the first copied ahead."""
    found = []
    for _ in range(NUM_BATCHES):
        found += read(layer, 1)
        wait_until(lambda: layer.loader._prefetcher.num_ready > 0)  # type: ignore[union-attr]
    layer.close()
    return found


@only_played
@pytest.mark.parametrize("source", ["raw", "float", pytest.param("sizes", marks=needs_codecs)])
def test_copies_wait_for_what_is_done_with_their_memory(watch: Watch, source: str) -> None:
    batch_size = 1 if source == "sizes" else BATCH_SIZE
    read_ahead(make_layer(data(source, "transform_param { mirror: true }", batch_size)))
    assert watch.num_copies >= NUM_BATCHES


@only_played
def test_copies_that_do_not_wait_are_found(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Stream.wait_event
    monkeypatch.setattr(
        Stream,
        "wait_event",
        lambda stream, event: wait(stream, event) if stream is Stream.current() else None,
    )
    with pytest.raises(Overtaken):
        read_ahead(make_layer(data("raw", MIRRORED)))


@only_played
def test_event_before_the_last_use_is_found(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ImageTransform.run

    def run_late(transform: ImageTransform, images: Any, *args: Any, **kwargs: Any) -> None:
        run(transform, images, *args, **kwargs)
        late.append(images)

    late: list[Any] = []
    monkeypatch.setattr(ImageTransform, "run", run_late)
    layer = make_layer(data("raw", MIRRORED))
    read(layer, 3)
    late[-1] + 1  # behind the event
    with pytest.raises(Overtaken):
        read_ahead(layer)


@only_played
def test_tops_written_before_the_copy_is_over_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "wait_event", lambda stream, event: None)
    (found,) = read(make_layer(data("float")), 1)
    garbage = np.full(4, 77, np.uint8).view(np.float32)  # what was on the device before
    assert all((values == garbage).all() for values in found)


def test_tops_stay_in_place_in_a_net_whose_blobs_share_memory() -> None:
    net = make_net(
        f"""layer {{ top: "data" top: "label" {data("raw", MIRRORED)} name: "data" }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param {{ num_output: 14 }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}""",
        engine=create_engine("cupy"),
    )
    share_memory([net])
    places = set()
    for _ in range(4):
        net.forward()
        net.backward()
        memory = net.layers[0].memory
        places.add(tuple(net.blobs[name].read_data(memory).data.ptr for name in ("data", "label")))
    assert len(places) == 1


def test_bytes_of_batches_are_those_of_the_arrays() -> None:
    layer = make_layer(data("raw", MIRRORED))
    read(layer, 3)
    feed, loader = layer.feed, layer.loader
    assert isinstance(feed, StagedFeed)
    # images, windows, labels, each up to a multiple of 256
    own = sum(-(-BATCH_SIZE * size // 256) * 256 for size in (3 * 9 * 12, 3 * 4, 4))
    assert loader.batch_bytes == own
    assert layer.device_bytes == 2 * own
    assert sum(place._block.nbytes for place in feed._places) == 2 * own
    assert loader.num_buffers == 4  # two that are being copied or have been, and two read ahead of them
    assert [batch.block.nbytes for batch in loader._buffers if batch.windows is not None][0] == own
    layer.close()
