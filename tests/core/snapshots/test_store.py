"""Snapshots are written in order and the newest whole one is found."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import LayerRecord, Manifest, Snapshot, SnapshotStore
from dtrain.core.snapshots.formats import FORMATS, HDF5, SnapshotFormat
from dtrain.proto import caffe_pb2

Write = Callable[[int], Snapshot]


def name_of(format: SnapshotFormat) -> str:
    return next(name for name, known in FORMATS.items() if known is format)


def test_store_write_names_files_as_caffe_does(write: Write, store: SnapshotStore) -> None:
    snapshot = write(5000)
    folder = Path(store.prefix).parent
    suffix = {"BINARYPROTO": "", "HDF5": ".h5"}[name_of(store.format)]
    assert sorted(path.name for path in folder.iterdir()) == [
        f"net_iter_5000.caffemodel{suffix}",
        "net_iter_5000.manifest.json",
        f"net_iter_5000.solverstate{suffix}",
    ]
    assert (snapshot.model_path, snapshot.state_path) == (store.model_path(5000), store.state_path(5000))
    state = snapshot.read_state()
    assert (state.iter, state.learned_net) == (5000, f"{store.prefix}_iter_5000.caffemodel{suffix}")


def test_store_write_commits_model_then_state_then_manifest(
    write: Write, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, endings = os.replace, []

    def noting(source: Path, target: Path) -> None:
        endings.append(target.name.removesuffix(store.format.suffix).partition(".")[2])
        real(source, target)

    monkeypatch.setattr(os, "replace", noting)
    write(1)
    assert endings == ["caffemodel", "solverstate", "manifest.json"]


def test_store_write_again_replaces_the_same_iteration(write: Write, store: SnapshotStore) -> None:
    write(10)
    assert write(10) == store.newest()


@pytest.mark.parametrize("prefix", ["net", "./net", "a.b/net.v1", "with space/n[e]t*", "folder/"])
def test_store_prefix_of_any_form_is_found_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layers: list[LayerRecord],
    manifest: Manifest,
    prefix: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    written = SnapshotStore(prefix).write("n", layers, [], manifest)
    assert os.path.exists(f"{prefix}_iter_10.caffemodel")
    assert SnapshotStore(prefix).newest() == written


def test_store_iterations_are_sorted_as_numbers_and_of_this_prefix_only(store: SnapshotStore) -> None:
    folder = Path(store.prefix).parent
    folder.mkdir()
    for name in (
        "net_iter_9.solverstate",
        "net_iter_100.caffemodel",
        "net_iter_100.manifest.json",
        "net_iter_20.caffemodel.h5",
        "other_net_iter_7.solverstate",
        "net_iter_5_iter_6.solverstate",
        "net_iter_3.solverstate.77.partial",
        "net_iter_007.solverstate",
        "net_iter_.solverstate",
    ):
        (folder / name).touch()
    assert store.iterations() == [100, 20, 9]


def test_store_newest_of_nothing_is_none(store: SnapshotStore) -> None:
    assert store.newest() is None
    store.probe()
    assert store.newest() is None


def test_store_newest_skips_each_broken_one_with_its_reason(
    write: Write, store: SnapshotStore, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = {iteration: write(iteration) for iteration in (1, 2, 10, 20, 30)}
    Path(f"{store.prefix}_iter_30.manifest.json").unlink()
    with open(snapshots[20].state_path, "r+b") as file:
        file.write(b"\xff")
    assert snapshots[10].model_path is not None
    snapshots[10].model_path.unlink()
    with caplog.at_level(logging.WARNING):
        assert store.newest() == snapshots[2]
    reasons = [record.getMessage() for record in caplog.records]
    assert [reason.split(": ")[0] for reason in reasons] == [
        f"Skipping the snapshot of iteration {iteration}" for iteration in (30, 20, 10)
    ]
    assert "snapshot must have a manifest, got none" in reasons[0]
    assert f"{snapshots[20].state_path}: file must be as its manifest says" in reasons[1]
    assert f"{snapshots[10].model_path}: file must exist" in reasons[2]


def test_store_find_takes_the_iteration_that_is_asked_for(write: Write, store: SnapshotStore) -> None:
    first, _ = write(1), write(2)
    assert store.find(1) == first
    with pytest.raises(UserError, match="net_iter_3: snapshot must have a manifest, got none"):
        store.find(3)


def test_store_probe_leaves_no_file(store: SnapshotStore) -> None:
    store.probe()
    assert list(Path(store.prefix).parent.iterdir()) == []


def test_store_probe_folder_that_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write snapshot .*/file/net_iter_0.caffemodel: File exists"):
        SnapshotStore(tmp_path / "file" / "net").probe()


def big_layers() -> list[LayerRecord]:
    half = np.broadcast_to(np.float32(0), (2**28,))  # 1 GB each, in four bytes
    return [LayerRecord(caffe_pb2.LayerParameter(name="big"), [half, half])]


def test_store_check_of_binary_over_two_gigabytes_says_so_before_anything_is_written(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "net")
    with pytest.raises(UserError) as error:
        store.check("n", big_layers(), [])
    assert str(error.value).startswith(
        f"{tmp_path}/net_iter_0.caffemodel: a binary snapshot must be at most 2147483647 bytes (2 GB), got 2147483"
    )
    assert str(error.value).endswith("set snapshot_format: HDF5, which has no such limit")
    with pytest.raises(UserError, match="net_iter_0.solverstate: a binary snapshot must be at most"):
        store.check("n", [], big_layers()[0].blobs)
    assert list(tmp_path.iterdir()) == []


def test_store_check_of_what_the_format_holds_passes_and_writes_nothing(
    store: SnapshotStore, layers: list[LayerRecord], history: list[np.ndarray]
) -> None:
    store.check("n", layers, history)
    assert not Path(store.prefix).parent.exists()
    SnapshotStore("net", HDF5).check("n", big_layers(), big_layers()[0].blobs)


def test_store_check_of_names_that_hdf5_cannot_hold_says_so(layers: list[LayerRecord]) -> None:
    with pytest.raises(
        UserError, match='net_iter_0.caffemodel.h5: layers must have names .* got "conv" twice'
    ):
        SnapshotStore("net", HDF5).check("n", [layers[0], layers[0]], [])


def test_store_of_one_format_finds_its_own_files_beside_another_s(
    tmp_path: Path, layers: list[LayerRecord], manifest: Manifest
) -> None:
    binary, hdf5 = SnapshotStore(tmp_path / "net"), SnapshotStore(tmp_path / "net", HDF5)
    binary.write("n", layers, [], manifest)
    later = hdf5.write("n", layers, [], replace(manifest, iteration=20))
    assert binary.newest() == hdf5.newest() == later
    assert hdf5.find(10).state_path == binary.state_path(10)


WRITE_AND_DIE = """
import os, signal, sys
from dtrain.core.snapshots import LayerRecord, Manifest, SnapshotStore
from dtrain.proto import caffe_pb2

real, num_renames, limit = os.replace, 0, int(sys.argv[2])

def replace_or_die(source, target):
    global num_renames
    if num_renames == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    num_renames += 1
    real(source, target)

os.replace = replace_or_die
manifest = Manifest(20, 1, {}, {}, 0, 1, 0, (), 20)
SnapshotStore(sys.argv[1]).write("n", [LayerRecord(caffe_pb2.LayerParameter(name="a"), [])], [], manifest)
"""


@pytest.mark.parametrize("num_renames", [0, 1, 2])
def test_store_newest_after_a_kill_between_files_falls_back(
    write: Write, store: SnapshotStore, python_environment: dict[str, str], num_renames: int
) -> None:
    whole = write(10)
    command = [sys.executable, "-c", WRITE_AND_DIE, store.prefix, str(num_renames)]
    assert subprocess.run(command, env=python_environment, timeout=60).returncode == -signal.SIGKILL
    folder = Path(store.prefix).parent
    assert len([path for path in folder.iterdir() if path.suffix == ".partial"]) == 3 - num_renames
    assert store.newest() == whole
    assert write(20) == store.newest()
    assert [path for path in folder.iterdir() if path.suffix == ".partial"] == []
