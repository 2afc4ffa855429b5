"""Tests of core/layers/hdf5_output.py."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.layers.hdf5_output import HDF5Output
from tests.core.layers.layer_harness import Rig, make_layer, make_rig


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
