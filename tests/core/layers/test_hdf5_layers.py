"""Tests of "HDF5Data" and "HDF5Output"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.layers.hdf5_output import HDF5Output
from dtrain.data.errors import DataError
from tests.core.layers.layer_harness import Rig, make_layer, make_rig


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


def output_rig(path: Path, data: np.ndarray, label: np.ndarray) -> Rig:
    return make_rig(
        f'type: "HDF5Output" hdf5_output_param {{ file_name: "{path}" }}', [data, label], num_tops=0
    )


def test_hdf5_output_writes_its_bottoms_with_four_axes_and_appends(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data, label = random.standard_normal((3, 2, 4)), np.arange(3.0)
    rig = output_rig(tmp_path / "out.h5", data, label)
    rig.forward()
    rig.feed([data[:2] + 1, label[:2] + 1])
    rig.forward()
    rig.backward([])
    rig.layer.close()
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["data", "label"]
        assert file["data"].dtype == file["label"].dtype == np.float64  # of the blobs
        np.testing.assert_array_equal(file["data"][:], np.concatenate([data, data[:2] + 1])[..., None])
        np.testing.assert_array_equal(file["label"][:].ravel(), [0, 1, 2, 1, 2])
        assert file["label"].shape == (5, 1, 1, 1)


def test_hdf5_output_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "out.h5").write_text("old")
    rig = output_rig(tmp_path / "out.h5", np.zeros((1, 2)), np.zeros(1))
    assert (tmp_path / "out.h5").read_text() == "old"  # until something is written
    rig.forward()
    rig.layer.close()
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["data"].shape == (1, 2, 1, 1)


def test_hdf5_output_of_another_rank_has_a_name_of_its_own() -> None:
    layer = make_layer('type: "HDF5Output" hdf5_output_param { file_name: "out/f.h5" }', 2, 0)
    assert isinstance(layer, HDF5Output)
    object.__setattr__(layer.context.shard, "world_size", 4)
    object.__setattr__(layer.context.shard, "rank", 3)
    layer.setup([], [])
    assert layer.path == "out/f_rank3.h5"


@pytest.mark.parametrize(
    ("data", "label", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3), r"as many items, got \(2, 3\) and \(3,\)"),
        (np.zeros((2, 1, 1, 1, 1)), np.zeros(2), "1 to 4 axes"),
        (np.zeros(()), np.zeros(()), "1 to 4 axes"),
    ],
)
def test_hdf5_output_of_bottoms_that_do_not_fit_says_so(
    data: np.ndarray, label: np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        output_rig(tmp_path / "out.h5", data, label)


def test_hdf5_output_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match="file_name must name a file, got none"):
        make_rig('type: "HDF5Output"', [np.zeros(2), np.zeros(2)], num_tops=0)


def test_hdf5_output_of_items_of_another_shape_is_refused(tmp_path: Path) -> None:
    rig = output_rig(tmp_path / "out.h5", np.zeros((2, 3)), np.zeros(2))
    rig.forward()
    rig.feed([np.zeros((2, 4)), np.zeros(2)])
    with pytest.raises(UserError, match=r'items of "data" must be \(3, 1, 1\) as before, got \(4, 1, 1\)'):
        rig.forward()
    rig.layer.close()
