"""Tests of core/layers/hdf5_data.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.data.errors import DataError
from tests.core.layers.layer_harness import make_rig


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of two files with 3 and 2 rows: row r has y0 = [r, r²] (as float64) and y1 = r (as integers)."""
    for name, rows in (("a", np.arange(3)), ("b", np.arange(3, 5))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["y0"] = np.stack([rows, rows**2], axis=1).astype(np.float64)
            file["y1"] = rows.astype(np.int32)
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    return tmp_path / "list.txt"


def data_layer(source: object, more: str = "", top_level: str = "") -> str:
    return f'type: "HDF5Data" hdf5_data_param {{ source: "{source}" batch_size: 2 {more} }} {top_level}'


def test_hdf5_data_gives_the_rows_of_all_files_in_turn(listed: Path) -> None:
    rig = make_rig(data_layer(listed), [], num_tops=2, dtype=np.float32)
    assert [blob.shape for blob in rig.top] == [(2, 2), (2,)]
    rows = [rig.forward()[1].tolist() for _ in range(4)]
    assert rows == [[0, 1], [2, 3], [4, 0], [1, 2]]
    assert rig.top[0].data.tolist() == [[1, 1], [2, 4]]
    rig.layer.close()


def test_hdf5_data_with_shuffle_gives_all_rows_in_another_order(listed: Path) -> None:
    rig = make_rig(data_layer(listed, "shuffle: true"), [], num_tops=2, dtype=np.float32)
    rows = [row for _ in range(10) for row in rig.forward()[1].tolist()]
    epochs = [rows[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert any(epoch != [0, 1, 2, 3, 4] for epoch in epochs)
    rig.layer.close()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda path: data_layer(""), "source must name a list of HDF5 files, got none"),
        (lambda path: data_layer("none.txt"), "none.txt: .*must be a readable text file, got: No such file"),
        (lambda path: data_layer(path / "a.h5"), "a.h5: .*is it the HDF5 file itself"),
        (
            lambda path: data_layer(path / "empty.txt"),
            "empty.txt: must name at least one HDF5 file, got none",
        ),
        (lambda path: data_layer(path / "wrong.txt"), "gone.h5: HDF5 file must exist, got no such file"),
        (
            lambda path: data_layer(path / "list.txt", top_level="transform_param { scale: 2 }"),
            "transform_param must be left out",
        ),
        (
            lambda path: f'type: "HDF5Data" hdf5_data_param {{ source: "{path / "list.txt"}" }}',
            "batch_size must be at least 1, got none",
        ),
    ],
)
def test_hdf5_data_that_can_not_be_says_why(layer: Callable[[Path], str], message: str, listed: Path) -> None:
    (listed.parent / "empty.txt").write_text("\n")
    (listed.parent / "wrong.txt").write_text("gone.h5\n")
    with pytest.raises((UserError, DataError), match=message):
        make_rig(layer(listed.parent), [], num_tops=2)
