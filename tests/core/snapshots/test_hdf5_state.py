"""Solverstates in HDF5, in and out, against h5py, Caffe's own calls and a file that Caffe wrote."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import SolverState
from dtrain.core.snapshots.commit import commit_file
from dtrain.core.snapshots.hdf5_state import encode_hdf5_state, read_hdf5_state
from tests.core.snapshots.h5lt import opened

RECORDED = Path(__file__).with_name("recorded")


def write(path: Path, state: SolverState) -> Path:
    commit_file(path, encode_hdf5_state(path, state))
    return path


def test_encode_hdf5_state_is_read_by_caffes_calls(tmp_path: Path, history: list[np.ndarray]) -> None:
    state = SolverState(5000, "dir/net_iter_5000.caffemodel.h5", 2, tuple(history))
    with opened(write(tmp_path / "x.solverstate.h5", state)) as file:
        assert (file.integer(b"iter"), file.integer(b"current_step")) == (5000, 2)
        assert file.string(b"learned_net") == b"dir/net_iter_5000.caffemodel.h5"
        assert file.names(b"history") == [b"0", b"1"]
        np.testing.assert_array_equal(file.floats(b"history/0"), history[0])


def test_encode_hdf5_state_has_the_types_of_caffes(tmp_path: Path, history: list[np.ndarray]) -> None:
    state = SolverState(5, "snap_iter_5.caffemodel.h5", 0, tuple(history))
    with (
        h5py.File(write(tmp_path / "x.h5", state)) as ours,
        h5py.File(RECORDED / "snap_iter_5.solverstate.h5") as caffes,
    ):
        assert set(ours) == set(caffes)
        for name in ("iter", "current_step", "learned_net"):
            assert (ours[name].shape, ours[name].dtype) == (caffes[name].shape, caffes[name].dtype)
            assert ours[name].id.get_type() == caffes[name].id.get_type()
            assert ours[name][()] == caffes[name][()]


def test_read_hdf5_state_gives_what_was_written(tmp_path: Path, history: list[np.ndarray]) -> None:
    many = tuple(history * 6)  # more than ten: "10" comes before "2" by name
    state = SolverState(10, "net.caffemodel.h5", 3, many)
    read = read_hdf5_state(write(tmp_path / "x.h5", state))
    assert (read.iter, read.learned_net, read.current_step) == (10, "net.caffemodel.h5", 3)
    assert [got.tolist() for got in read.history] == [want.tolist() for want in many]
    assert [got.dtype for got in read.history] == [want.dtype for want in many]


def test_read_hdf5_state_of_caffe_gives_its_values() -> None:
    state = read_hdf5_state(RECORDED / "snap_iter_5.solverstate.h5")
    assert (state.iter, state.learned_net, state.current_step) == (5, "snap_iter_5.caffemodel.h5", 0)
    with np.load(RECORDED / "adam_params_5.npz") as params:
        order = [
            "conv_0",
            "conv_1",
            "bn_0",
            "bn_1",
            "bn_2",
            "sc_0",
            "sc_1",
            "frozen_0",
            "frozen_1",
            "ip_0",
            "ip_1",
        ]
        shapes = [params[name].shape for name in order]
    assert [blob.shape for blob in state.history] == shapes + shapes  # Adam's first and second moments
    assert all((second >= 0).all() for second in state.history[11:])


def test_read_hdf5_state_without_optional_parts_gives_caffes_defaults(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root["iter"] = [7]
        root.create_group("history")
    assert read_hdf5_state(tmp_path / "x.h5") == SolverState(7, "", 0, ())


def test_hdf5_state_without_learned_net_has_no_such_dataset(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "x.h5", SolverState(1, "", 0, ()))) as root:
        assert sorted(root) == ["current_step", "history", "iter"]


@pytest.mark.parametrize("text", ["caf\udce9.caffemodel.h5", "ü.caffemodel.h5"])
def test_hdf5_state_path_in_any_encoding_passes_unchanged(tmp_path: Path, text: str) -> None:
    assert read_hdf5_state(write(tmp_path / "x.h5", SolverState(1, text, 0, ()))).learned_net == text


def test_read_hdf5_state_string_of_variable_length_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root["iter"] = [7]
        root["learned_net"] = "by_h5py.caffemodel.h5"
        root.create_group("history")
    assert read_hdf5_state(tmp_path / "x.h5").learned_net == "by_h5py.caffemodel.h5"


@pytest.mark.parametrize(
    ("datasets", "got"),
    [
        ({"x": [1.0]}, "no /iter and /history"),
        ({"iter": [1, 2], "history/0": [1.0]}, "no single whole number in /iter"),
        ({"iter": [0.5], "history/0": [1.0]}, "no single whole number in /iter"),
        ({"iter": [1], "history/0": [1.0], "learned_net": [1]}, "no text in /learned_net"),
        ({"iter": [1], "history/1": [1.0]}, ".*'0'.*"),
    ],
)
def test_read_hdf5_state_of_another_content_says_so(
    tmp_path: Path, datasets: dict[str, list[float]], got: str
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as root:
        for name, values in datasets.items():
            root[name] = values
    with pytest.raises(UserError, match=f"^{path}: file must be a whole .solverstate in HDF5, got {got};"):
        read_hdf5_state(path)


def test_read_hdf5_state_truncated_or_flipped_raises_nothing_but_user_error(
    tmp_path: Path, damaged_here_and_there: list[bytes]
) -> None:
    path = tmp_path / "x.solverstate.h5"
    refusals = []
    for content in damaged_here_and_there:
        path.write_bytes(content)
        try:
            read_hdf5_state(path)
        except UserError as error:
            refusals.append(str(error))
    assert all(refusal.startswith(f"{path}: file must be") for refusal in refusals)
    assert len(refusals) > len(damaged_here_and_there) // 4


@pytest.fixture
def damaged_here_and_there(tmp_path: Path, history: list[np.ndarray], damaged: object) -> list[bytes]:
    """Every 37th of all cuts and flips of a small state."""
    path = write(tmp_path / "good.h5", SolverState(10, "net.caffemodel.h5", 2, tuple(history)))
    return damaged(path.read_bytes())[::37]  # type: ignore[operator]
