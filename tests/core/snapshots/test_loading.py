"""Snapshots and weights that a user names, dtrain's own and Caffe's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import Snapshot, load_snapshot, load_weights
from dtrain.proto import caffe_pb2

Write = Callable[[int], Snapshot]


@pytest.fixture
def caffes(tmp_path: Path) -> Path:
    """A snapshot as Caffe leaves it: two files, the model where learned_net says."""
    net = caffe_pb2.NetParameter(name="n", layer=[caffe_pb2.LayerParameter(name="ip", type="InnerProduct")])
    (tmp_path / "caffe_iter_7.caffemodel").write_bytes(net.SerializeToString())
    state = caffe_pb2.SolverState(iter=7, learned_net=str(tmp_path / "caffe_iter_7.caffemodel"))
    (tmp_path / "caffe_iter_7.solverstate").write_bytes(state.SerializeToString())
    return tmp_path / "caffe_iter_7.solverstate"


def flip(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_load_snapshot_of_dtrain_is_verified_and_has_its_manifest(write: Write) -> None:
    written = write(10)
    assert load_snapshot(written.state_path, require_manifest=True) == written


def test_load_snapshot_of_dtrain_moved_takes_the_model_beside_it(write: Write, tmp_path: Path) -> None:
    written = write(10)
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in written.state_path.parent.iterdir():
        (copies / path.name).write_bytes(path.read_bytes())
    assert written.model_path is not None
    assert load_snapshot(copies / written.state_path.name).model_path == copies / written.model_path.name


def test_load_snapshot_damaged_names_file_and_newest_whole_one(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    whole, damaged = write(10), write(20)
    flip(damaged.state_path)
    with pytest.raises(UserError) as error, caplog.at_level(logging.INFO):
        load_snapshot(damaged.state_path)
    assert caplog.records == []  # it is said once
    assert str(error.value).startswith(f"{damaged.state_path}: file must be as its manifest says")
    assert str(error.value).endswith(f"; the newest whole snapshot is {whole.state_path}")


def test_load_snapshot_damaged_manifest_names_it(write: Write) -> None:
    damaged = write(20)
    manifest_path = damaged.state_path.with_name("net_iter_20.manifest.json")
    flip(manifest_path, 5)
    with pytest.raises(UserError, match=f"^{manifest_path}: manifest must be as it was written[^;]*; [^;]*$"):
        load_snapshot(damaged.state_path)


def test_load_snapshot_missing_names_newest_whole_one(write: Write) -> None:
    whole = write(10)
    with pytest.raises(UserError) as error:
        load_snapshot(whole.state_path.with_name("net_iter_11.solverstate"))
    assert "net_iter_11.solverstate: file must exist, got no such file" in str(error.value)
    assert str(error.value).endswith(f"; the newest whole snapshot is {whole.state_path}")


def test_load_snapshot_caffemodel_is_refused(write: Write) -> None:
    model_path = write(10).model_path
    assert model_path is not None
    with pytest.raises(UserError, match="file must be a .solverstate, got a .caffemodel"):
        load_snapshot(model_path)


def test_load_snapshot_of_caffe_says_what_starts_anew(caffes: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        snapshot = load_snapshot(caffes)
    assert snapshot == Snapshot(caffes, caffes.with_suffix(".caffemodel"), None)
    assert (snapshot.read_state().iter, snapshot.read_weights()[0].name) == (7, "ip")
    assert [record.getMessage() for record in caplog.records] == [
        f"{caffes} has no manifest: the data go on as if every iteration had read its batch, "
        "seed and smoothed loss start anew"
    ]


def test_load_snapshot_of_caffe_with_manifest_required_is_refused(caffes: Path) -> None:
    with pytest.raises(UserError, match="caffe_iter_7.solverstate: snapshot must have a manifest, got none"):
        load_snapshot(caffes, require_manifest=True)


def test_load_snapshot_of_caffe_moved_finds_its_model_beside_it(caffes: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (caffes, caffes.with_suffix(".caffemodel")):
        path.rename(moved / path.name)
    assert load_snapshot(moved / caffes.name).model_path == moved / "caffe_iter_7.caffemodel"


def test_load_snapshot_of_caffe_without_its_model_raises(caffes: Path) -> None:
    model_path = caffes.with_suffix(".caffemodel")
    model_path.unlink()
    with pytest.raises(
        UserError, match=f"learned_net must exist, got {model_path}; put {model_path.name} beside it"
    ):
        load_snapshot(caffes)


def test_load_snapshot_of_caffe_without_learned_net_has_no_model(caffes: Path) -> None:
    caffes.write_bytes(caffe_pb2.SolverState(iter=7).SerializeToString())
    assert load_snapshot(caffes).model_path is None


def test_load_weights_reads_dtrains_and_caffes(write: Write, caffes: Path) -> None:
    model_path = write(10).model_path
    assert model_path is not None
    assert sorted(layer.name for layer in load_weights(model_path)) == ["conv", "ip", "relu"]
    assert [layer.name for layer in load_weights(caffes.with_suffix(".caffemodel"))] == ["ip"]


def test_load_weights_goes_by_content_and_not_by_name(write: Write, tmp_path: Path) -> None:
    model_path = write(10).model_path
    assert model_path is not None
    for name in ("weights", "other.caffemodel", "other.caffemodel.h5"):
        (tmp_path / name).write_bytes(model_path.read_bytes())
        assert sorted(layer.name for layer in load_weights(tmp_path / name)) == ["conv", "ip", "relu"]


def test_load_snapshot_of_caffe_in_hdf5_finds_its_model_beside_it() -> None:
    folder = Path(__file__).with_name("recorded")
    snapshot = load_snapshot(folder / "snap_iter_5.solverstate.h5")
    assert snapshot == Snapshot(
        folder / "snap_iter_5.solverstate.h5", folder / "snap_iter_5.caffemodel.h5", None
    )
    assert (snapshot.read_state().iter, len(snapshot.read_weights())) == (5, 10)


def test_load_weights_flipped_value_is_noticed(write: Write) -> None:
    model_path = write(10).model_path
    assert model_path is not None
    flip(model_path)
    with pytest.raises(UserError, match=f"^{model_path}: file must be as its manifest says"):
        load_weights(model_path)


def test_load_weights_solverstate_is_refused(write: Write) -> None:
    with pytest.raises(UserError, match="file must be a .caffemodel, got a .solverstate"):
        load_weights(write(10).state_path)
