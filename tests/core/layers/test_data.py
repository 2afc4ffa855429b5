"""Data: what a database's records become in the tops, and what can be wrong with its fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.layers.data import Data
from dtrain.core.layers.layer import LayerContext
from dtrain.core.random_streams import RandomStreams
from dtrain.data.datum import encode_datum
from dtrain.data.errors import DataError
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.sampler import Sampler, Shard
from tests.core.layers.layer_harness import TEST, TRAIN, parse_layer

NUM_RECORDS = 10
IMAGES = np.arange(NUM_RECORDS * 18, dtype=np.uint8).reshape(NUM_RECORDS, 2, 3, 3)
LABELS = np.arange(NUM_RECORDS) % 4


@pytest.fixture
def database(tmp_path: Path) -> Path:
    records = ((b"%08d" % i, encode_datum(IMAGES[i], int(LABELS[i]))) for i in range(NUM_RECORDS))
    write_lmdb(tmp_path / "records", records)
    return tmp_path / "records"


class Rig:
    """A Data layer with its tops, made on demand and closed at the end."""

    def __init__(self) -> None:
        self.made: list[Data] = []

    def __call__(
        self, fields: str, num_tops: int = 2, phase: int = TRAIN, net_path: str = ""
    ) -> tuple[Data, list[Blob]]:
        param = parse_layer(f'type: "Data" {fields}')
        context = LayerContext(
            phase, create_engine("reference"), RandomStreams(7), Shard(0, 1), net_path=net_path
        )
        layer, tops = Data(param, context), [Blob() for _ in range(num_tops)]
        layer.setup([], tops)
        self.made.append(layer)
        layer.reshape([], tops)
        return layer, tops


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for layer in made.made:
        layer.close()


def test_data_gives_transformed_records_in_order_and_wraps(database: Path, rig: Rig) -> None:
    layer, (data, label) = rig(
        f'data_param {{ source: "{database}" backend: LMDB batch_size: 6 }} '
        "transform_param { scale: 0.5 mean_value: 3 }"
    )
    assert (data.shape, label.shape) == ((6, 2, 3, 3), (6,))
    for batch in range(2):
        layer.forward([], [data, label])
        rows = np.arange(6 * batch, 6 * batch + 6) % NUM_RECORDS
        np.testing.assert_array_equal(data.data, (IMAGES[rows] - np.float32(3)) * 0.5)
        np.testing.assert_array_equal(label.data, LABELS[rows])


def test_data_with_one_top_gives_no_labels(database: Path, rig: Rig) -> None:
    layer, (data,) = rig(f'data_param {{ source: "{database}" backend: LMDB batch_size: 3 }}', num_tops=1)
    layer.forward([], [data])
    np.testing.assert_array_equal(data.data, IMAGES[:3])


@pytest.mark.parametrize(("phase", "crop"), [(TRAIN, None), (TEST, 1)])
def test_data_crop_is_random_in_train_and_central_in_test(
    database: Path, rig: Rig, phase: int, crop: int | None
) -> None:
    layer, (data, label) = rig(
        f'data_param {{ source: "{database}" backend: LMDB batch_size: 10 }} transform_param {{ crop_size: 1 }}',
        phase=phase,
    )
    layer.forward([], [data, label])
    offsets = data.data[:, 0, 0, 0].astype(int) - IMAGES[:, 0, 0, 0]
    if crop is not None:
        assert set(offsets) == {3 + crop}
    else:
        assert len(set(offsets)) > 1


@pytest.mark.parametrize(("phase", "shuffles"), [(TRAIN, True), (TEST, False)])
def test_data_shuffles_by_the_seed_in_train_alone(
    database: Path, rig: Rig, phase: int, shuffles: bool
) -> None:
    layer, (data, label) = rig(
        f'data_param {{ source: "{database}" backend: LMDB batch_size: {NUM_RECORDS} }} '
        "dtrain_param { shuffle: true }",
        phase=phase,
    )
    layer.forward([], [data, label])
    _, order = Sampler(NUM_RECORDS, seed=7, shuffle=shuffles).records(np.arange(NUM_RECORDS))
    np.testing.assert_array_equal(data.data, IMAGES[order])
    assert shuffles == (list(order) != list(range(NUM_RECORDS)))


def test_data_source_is_found_beside_the_net_s_file(
    database: Path, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    layer, (data, label) = rig(
        'data_param { source: "records" backend: LMDB batch_size: 1 }', net_path=str(database.parent / "n")
    )
    layer.forward([], [data, label])
    np.testing.assert_array_equal(data.data[0], IMAGES[0])


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ("backend: LMDB batch_size: 1", UserError, "data_param.source must name a database, got none"),
        ('source: "x" backend: LMDB', UserError, "data_param.batch_size must be at least 1, got none"),
        ('source: "x" batch_size: 1', DataError, "x: backend must be one of LMDB, got LEVELDB"),
        (
            'source: "x" backend: LMDB batch_size: 1',
            DataError,
            "x: LMDB must exist, got no such file or folder",
        ),
    ],
)
def test_data_of_mistaken_fields_is_one_sentence(
    rig: Rig, fields: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        rig(f"data_param {{ {fields} }}")
    assert str(caught.value) == text
