from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Engine
from dtrain.core.layers import LAYERS, LayerContext
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.random_streams import RandomStreams
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2
from tests.played.cupy import play_cupy

NUM_RECORDS, BATCH_SIZE = 10, 4
ALONE = Shard(0, 1)
MakeReader = Callable[..., ReadingLayer]


@pytest.fixture(params=["reference", "cupy"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Return an engine that computes on the host, and one on a GPU."""
    play_cupy(monkeypatch)
    return create_engine(request.param)


@pytest.fixture
def make_reader(tmp_path: Path, engine: Engine) -> MakeReader:
    """Return a function that sets up a Data layer on 10 images of 1x2x2 whose values are their labels, 0 … 9."""
    path = tmp_path / "lmdb"
    datums = [
        caffe_pb2.Datum(channels=1, height=2, width=2, label=i, data=bytes([i] * 4))
        for i in range(NUM_RECORDS)
    ]
    write_lmdb(path, ((b"%08d" % i, datum.SerializeToString()) for i, datum in enumerate(datums)))

    def make(shard: Shard = ALONE, shuffle: bool = False, num_tops: int = 2) -> ReadingLayer:
        param = caffe_pb2.LayerParameter(name="data", type="Data", top=["data", "label"][:num_tops])
        param.data_param.source, param.data_param.batch_size = str(path), BATCH_SIZE
        param.data_param.backend = caffe_pb2.DataParameter.LMDB
        param.dtrain_param.shuffle = shuffle
        context = LayerContext(caffe_pb2.TRAIN, engine, RandomStreams(1), shard)
        layer = LAYERS["Data"](param, context)
        assert isinstance(layer, ReadingLayer)
        layer.setup([], [Blob() for _ in range(num_tops)])
        return layer

    return make


def read(layer: ReadingLayer, num_batches: int = 1) -> list[int]:
    """Return the labels of the next batches, after a look at their images."""
    top, labels = [Blob(), Blob()], []
    for _ in range(num_batches):
        layer.reshape([], top)
        layer.forward([], top)
        assert top[0].shape == (BATCH_SIZE, 1, 2, 2)
        np.testing.assert_array_equal(top[0].data[:, 0, 0, 0], top[1].data)
        labels += top[1].data.astype(int).tolist()
    return labels


def test_reading_layer_begins_by_itself_with_the_first_record_and_wraps(make_reader: MakeReader) -> None:
    layer = make_reader()
    assert not layer.started
    assert read(layer, 3) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert layer.started
    layer.close()


@pytest.mark.parametrize("first", [0, 7, 123])
def test_start_reads_on_from_a_position_of_the_common_stream(make_reader: MakeReader, first: int) -> None:
    layer = make_reader()
    read(layer)
    layer.start(first)
    assert layer.position == first
    assert read(layer, 2) == [(first + i) % NUM_RECORDS for i in range(8)]
    assert layer.position == first + 8
    layer.close()


def test_position_counts_what_all_ranks_have_consumed(make_reader: MakeReader) -> None:
    readers = [make_reader(Shard(rank, 3)) for rank in range(3)]
    batches = []
    for layer in readers:
        layer.start(5)
        batches.append(read(layer))
        assert layer.records_per_pass == 3 * BATCH_SIZE
        assert layer.position == 5 + 3 * BATCH_SIZE
        assert layer.num_records == NUM_RECORDS
        layer.close()
    dealt = [batches[i % 3][i // 3] for i in range(12)]
    assert dealt == [(5 + i) % NUM_RECORDS for i in range(12)]


def test_reseed_gives_the_order_of_another_seed(make_reader: MakeReader) -> None:
    orders = []
    for seed in (1, 2, None):
        layer = make_reader(shuffle=True)
        if seed is not None:
            layer.reseed(seed)
        orders.append(read(layer, 5))
        layer.close()
    assert orders[0] == orders[2]  # the context's own seed is 1
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
        assert order[:10] != order[10:]


def test_name_item_names_database_and_record(make_reader: MakeReader) -> None:
    layer = make_reader()
    read(layer, 2)
    assert 'record "00000006"' in layer.name_item(2)
    layer.close()


def test_reading_layer_with_one_top_has_no_labels(make_reader: MakeReader) -> None:
    layer, top = make_reader(num_tops=1), [Blob()]
    layer.reshape([], top)
    layer.forward([], top)
    assert top[0].data[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    layer.backward(top, [], [])
    assert not top[0].diff.any()
    layer.close()


def test_close_twice_is_fine(make_reader: MakeReader) -> None:
    layer = make_reader()
    read(layer)
    layer.close()
    layer.close()
