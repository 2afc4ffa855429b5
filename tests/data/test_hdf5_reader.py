"""Tests of data/hdf5_reader.py."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.errors import DataError
from dtrain.data.hdf5_reader import Hdf5Reader
from dtrain.data.loader import Deal, Loader
from dtrain.data.sampler import Shard

COUNTS = (5, 3, 4)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Three files; row r of all 12 has x = [[r, r + 0.5]] and label = 100 + r."""
    first = 0
    for file, count in enumerate(COUNTS):
        rows = np.arange(first, first + count)
        with h5py.File(tmp_path / f"{file}.h5", "w") as contents:
            contents["x"] = np.stack([rows, rows + 0.5], axis=1)[:, None, :]
            contents.create_dataset("label", data=100 + rows, chunks=(2,), compression="gzip")
        first += count
    return [str(tmp_path / f"{file}.h5") for file in range(3)]


def read(reader: Hdf5Reader, positions: list[int]) -> Batch:
    batch = Batch(len(positions), reader.shapes)
    reader.read(np.array(positions), batch)
    return batch


def expect_rows(batch: Batch, rows: list[int]) -> None:
    assert batch.arrays[0].tolist() == [[[row, row + 0.5]] for row in rows]
    assert batch.arrays[1].tolist() == [100 + row for row in rows]
    assert batch.indices.tolist() == rows


@pytest.mark.parametrize(
    "positions",
    [[0, 1, 2, 3], [3, 4, 5, 6, 7, 8, 9], [0, 2, 4, 6, 8, 10], [11, 12, 13], [7, 1, 1, 9, 0, 3], [2, 14, 26]],
)
def test_read_returns_the_rows_at_any_positions(positions: list[int], paths: list[str]) -> None:
    reader = Hdf5Reader(paths, ["x", "label"])
    assert (reader.num_records, reader.shapes) == (12, ((1, 2), ()))
    batch = read(reader, positions)
    expect_rows(batch, [position % 12 for position in positions])
    assert batch.epochs.tolist() == [position // 12 for position in positions]
    reader.close()


def test_shuffle_permutes_files_and_the_rows_of_each(paths: list[str]) -> None:
    reader = Hdf5Reader(paths, ["x", "label"], shuffle=True, seed=4)
    epochs = [read(reader, list(range(12 * epoch, 12 * epoch + 12))).indices.tolist() for epoch in range(20)]
    files = np.repeat(range(3), COUNTS)
    for rows in epochs:
        assert sorted(rows) == list(range(12))
        order = files[rows]
        assert np.count_nonzero(np.diff(order)) == 2  # one file after the other
    assert len({tuple(dict.fromkeys(files[rows].tolist())) for rows in epochs}) > 2
    assert len({tuple(row for row in rows if files[row] == 0) for rows in epochs}) > 5
    reader.reseed(5)
    assert read(reader, list(range(12))).indices.tolist() != epochs[0]
    reader.reseed(4)
    assert read(reader, list(range(12))).indices.tolist() == epochs[0]


@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_together_read_what_one_reads(shuffle: bool, paths: list[str]) -> None:
    def rows(shard: Shard, batch_size: int, deal: Deal = "records") -> NDArray[np.int64]:
        reader = Hdf5Reader(paths, ["label"], shuffle, seed=1)
        loader = Loader(reader, batch_size, shard, deal)
        loader.start(7)
        read = np.array([loader.next().indices.copy() for _ in range(9)])
        loader.close()
        return read

    together = np.stack([rows(Shard(rank, 3), 2) for rank in range(3)], axis=2)
    assert np.array_equal(together.reshape(9, 6), rows(Shard(), 6))


def test_more_files_than_are_kept_open_are_read_too(tmp_path: Path) -> None:
    for file in range(12):
        with h5py.File(tmp_path / f"{file:02}.h5", "w") as contents:
            contents["x"] = np.array([file, file], np.int32)
    reader = Hdf5Reader([str(path) for path in sorted(tmp_path.iterdir())], ["x"])
    for _ in range(2):
        assert read(reader, list(range(24))).arrays[0].tolist() == [row // 2 for row in range(24)]
    reader.close()


def test_name_record_names_row_and_file(paths: list[str]) -> None:
    reader = Hdf5Reader(paths, ["x"])
    assert [reader.name_record(index) for index in (0, 6, 11)] == [
        f"row 0 of {paths[0]}",
        f"row 1 of {paths[1]}",
        f"row 3 of {paths[2]}",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [1.0]}, 'must have a dataset for each top, got none called "x"; it has y'),
        ({"x": [[1.0]], "label": [1, 2]}, "all datasets must have as many rows, got 1 of x, 2 of label"),
        (
            {"x": [[1.0]], "label": [1]},
            r"rows must be shaped like those of .*0.h5, \(\(1, 2\), \(\)\), got \(\(1,\)",
        ),
        ({"x": "text", "label": [1]}, 'dataset "x" must hold rows of numbers'),
        ({"x": 1.0, "label": [1]}, 'dataset "x" must hold rows of numbers'),
    ],
)
def test_file_that_does_not_fit_is_refused(
    change: dict[str, object], message: str, paths: list[str], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as contents:
        for name, values in change.items():
            contents[name] = values
    with pytest.raises(DataError, match=f"^{tmp_path / 'other.h5'}: {message}"):
        Hdf5Reader([paths[0], str(tmp_path / "other.h5")], ["x", "label"])


def test_group_of_a_tops_name_is_no_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as contents:
        contents.create_group("x")
    with pytest.raises(DataError, match='none called "x"'):
        Hdf5Reader([str(tmp_path / "a.h5")], ["x"])


def test_files_without_a_row_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as contents:
        contents["x"] = np.zeros((0, 3))
    with pytest.raises(DataError, match="at least one row, got none"):
        Hdf5Reader([str(tmp_path / "a.h5")], ["x"])


def test_files_without_a_row_among_others_are_passed_over(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{file}.h5") for file in range(4)]
    for path, rows in zip(paths, ([0.0, 1.0], [], [2.0], []), strict=True):
        with h5py.File(path, "w") as contents:
            contents["x"] = np.array(rows)
    reader = Hdf5Reader(paths, ["x"])
    assert read(reader, list(range(6))).arrays[0].tolist() == [0, 1, 2, 0, 1, 2]
    assert [reader.name_record(index) for index in (1, 2)] == [f"row 1 of {paths[0]}", f"row 0 of {paths[2]}"]
    reader.close()
