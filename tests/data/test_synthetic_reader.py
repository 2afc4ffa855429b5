"""Made-up records: of the shapes asked for, evenly spread, the same on any ranks, and transformed as others are."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.data.batch import Batch
from dtrain.data.errors import DataError
from dtrain.data.loader import Loader
from dtrain.data.sampler import Sampler, Shard
from dtrain.data.synthetic_reader import SyntheticReader
from dtrain.data.transformer import Transformer, TransformSpec

SHAPE = (3, 6, 7)
NUM_RECORDS = 50


def make(spec: TransformSpec | None = None, seed: int = 1, train: bool = False) -> SyntheticReader:
    transformer = Transformer(spec or TransformSpec(), train, seed)
    return SyntheticReader([SHAPE, ()], Sampler(NUM_RECORDS, seed), transformer, seed)


def read(reader: SyntheticReader, positions: list[int] | range) -> Batch:
    batch = Batch(len(positions), reader.shapes)
    reader.read(np.array(positions), batch)
    return batch


def test_read_of_images_gives_even_bytes_and_labels_of_0_and_1() -> None:
    reader = make()
    assert (reader.num_records, reader.shapes) == (NUM_RECORDS, (SHAPE, ()))
    batch = read(reader, range(NUM_RECORDS))
    assert set(batch.data.ravel()) <= set(range(256))
    num_bytes = batch.data.size
    assert abs(batch.data.mean() - 127.5) < 4 * 73.9 / num_bytes**0.5  # 73.9: the deviation of even bytes
    assert set(batch.labels) == {0, 1}
    assert len({image.tobytes() for image in batch.data}) == NUM_RECORDS


def test_read_of_a_record_depends_on_seed_and_number_alone() -> None:
    batch, again = read(make(), [3, 4, 5]), read(make(), [55, 3])  # 55 is record 5 of the next epoch
    np.testing.assert_array_equal(again.data, batch.data[[2, 0]])
    np.testing.assert_array_equal(again.labels, batch.labels[[2, 0]])
    assert again.epochs.tolist() == [1, 0]
    assert again.indices.tolist() == [5, 3]
    other = read(make(seed=2), [3, 4, 5])
    assert not np.array_equal(other.data, batch.data)
    reseeded = make()
    read(reseeded, [1])
    reseeded.reseed(2)
    np.testing.assert_array_equal(read(reseeded, [3, 4, 5]).data, other.data)


@pytest.mark.parametrize("num_values", [1, 10, 1000])
def test_limit_values_bounds_whole_numbers_and_lets_each_occur(num_values: int) -> None:
    reader = SyntheticReader([(), (40_000,)], Sampler(1))
    reader.limit_values(1, num_values)
    values = read(reader, [0]).arrays[1]
    assert set(values.ravel()) == set(range(num_values))  # 40 of each and more


def test_limit_values_of_the_first_array_makes_it_whole_numbers() -> None:
    reader = SyntheticReader([(4, 5)], Sampler(NUM_RECORDS))
    values = read(reader, range(8)).data
    assert values.shape == (8, 4, 5)
    assert 0 <= values.min() < values.max() < 1
    assert len(np.unique(values)) > 8
    reader.limit_values(0, 3)
    assert set(read(reader, range(8)).data.ravel()) == {0, 1, 2}


def test_read_transforms_images_as_any_reader_does() -> None:
    plain = read(make(), range(8)).data
    scaled = read(make(TransformSpec(scale=0.5, mean_values=(3.0, 4.0, 5.0), crop_size=4)), range(8)).data
    expected = 0.5 * (plain - np.array([3, 4, 5], np.float32).reshape(-1, 1, 1))[:, :, 1:5, 1:5]
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)  # in tests the window is in the middle
    crops = read(make(TransformSpec(crop_size=4), train=True), range(8)).data
    places = set()
    for image, crop in zip(plain, crops, strict=True):
        found = [
            (i, j) for i in range(3) for j in range(4) if np.array_equal(image[:, i : i + 4, j : j + 4], crop)
        ]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 2


def test_crop_larger_than_the_records_raises() -> None:
    with pytest.raises(DataError, match="crop_size must fit into the records of 3x6x7, got 8"):
        make(TransformSpec(crop_size=8))


def test_ranks_together_read_what_one_rank_reads() -> None:
    def first_batch(rank: int, world_size: int, batch_size: int) -> np.ndarray:
        loader = Loader(make(), batch_size, Shard(rank, world_size))
        loader.start(0, 1)
        data = loader.next().data.copy()
        loader.close()
        return data

    alone = first_batch(0, 1, 8)
    np.testing.assert_array_equal(
        np.stack([first_batch(rank, 2, 4) for rank in range(2)], 1).reshape(alone.shape), alone
    )


def test_name_record_says_that_it_is_made_up() -> None:
    assert make().name_record(7) == "made-up record 7"
