"""Layers that read records: where they start, what they count, and which record is where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.layers.data import Data
from dtrain.core.layers.layer import LayerContext
from dtrain.core.random_streams import RandomStreams
from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.loader import Deal
from dtrain.data.sampler import Sampler, Shard
from tests.core.layers.layer_harness import TRAIN, parse_layer

NUM_RECORDS, BATCH_SIZE, WORLD_SIZE, RANK = 11, 2, 3, 1


def make_layer(folder: Path, deal: Deal, shuffle: bool = False) -> Data:
    """Return the layer of rank 1 of 3 on records whose label is their number."""
    database = folder / "records"
    if not database.exists():
        image = np.zeros((1, 1, 1), np.uint8)
        write_lmdb(database, ((b"key%03d" % i, encode_datum(image, i)) for i in range(NUM_RECORDS)))
    param = parse_layer(
        f'type: "Data" data_param {{ source: "{database}" backend: LMDB batch_size: {BATCH_SIZE} }} '
        f"dtrain_param {{ shuffle: {str(shuffle).lower()} }}"
    )
    shard = Shard(RANK, WORLD_SIZE)
    layer = Data(param, LayerContext(TRAIN, create_engine("reference"), RandomStreams(5), shard, deal))
    layer.setup([], [])
    return layer


@pytest.fixture(params=["records", "batches"])
def deal(request: pytest.FixtureRequest) -> Deal:
    chosen: Deal = request.param
    return chosen


@pytest.fixture
def layer(tmp_path: Path, deal: Deal) -> Iterator[Data]:
    made = make_layer(tmp_path, deal)
    yield made
    made.close()


def labels_after(layer: Data, num_forwards: int) -> list[int]:
    tops = [Blob(), Blob()]
    layer.reshape([], tops)
    for _ in range(num_forwards):
        layer.forward([], tops)
    return [int(label) for label in tops[1].data]


# Rank 1 of 3 with batches of 2, from position 4 on, in its second batch: records 4 + 6 + 1 + {0, 3} dealt one
# by one, 4 + (3 + 1)·2 + {0, 1} dealt by batches; modulo 11.
SECOND_BATCH = {"records": [0, 3], "batches": [1, 2]}


def test_reading_layer_started_at_a_position_reads_this_rank_s_share(layer: Data, deal: Deal) -> None:
    layer.start(4)
    assert labels_after(layer, 2) == SECOND_BATCH[deal]
    assert layer.position == 4 + 2 * BATCH_SIZE * WORLD_SIZE
    assert layer.records_per_pass == BATCH_SIZE * WORLD_SIZE
    assert layer.num_records == NUM_RECORDS


def test_reading_layer_that_nobody_started_begins_at_the_first_record(layer: Data, deal: Deal) -> None:
    assert not layer.started
    assert labels_after(layer, 1) == {"records": [1, 4], "batches": [2, 3]}[deal]
    assert layer.started


def test_reading_layer_started_again_forgets_what_was_read(layer: Data, deal: Deal) -> None:
    labels_after(layer, 3)
    layer.start(4)
    assert layer.position == 4
    assert labels_after(layer, 2) == SECOND_BATCH[deal]


def test_reading_layer_names_the_record_of_an_item(layer: Data, deal: Deal, tmp_path: Path) -> None:
    layer.start(4)
    labels = labels_after(layer, 2)
    for item, label in enumerate(labels):
        assert layer.name_item(item) == f'record "key{label:03}" of {tmp_path}/records'


def test_reading_layer_reseeded_takes_the_order_of_that_seed(tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "batches", shuffle=True)
    labels_after(layer, 1)
    layer.reseed(8)
    layer.start(0)
    positions = Shard(RANK, WORLD_SIZE).deal_batches(0, 0, BATCH_SIZE)
    _, expected = Sampler(NUM_RECORDS, seed=8, shuffle=True).records(positions)
    assert labels_after(layer, 1) == expected.tolist()
    layer.close()
