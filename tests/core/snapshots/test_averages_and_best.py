"""What a run may keep beside the weights: averaged weights, and marks of which snapshots are the best."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import LayerRecord, Manifest, MonitorState, Snapshot, SnapshotStore, load_weights
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE
from dtrain.core.snapshots.snapshot import open_verified, split_stem


@pytest.fixture
def averaged(store: SnapshotStore, layers: list[LayerRecord], manifest: Manifest) -> Snapshot:
    """A snapshot of iteration 10 with averages, which are the weights + 1."""
    averages = [layer._replace(blobs=[blob + 1 for blob in layer.blobs]) for layer in layers]
    return store.write("small", layers, [], replace(manifest, num_averaged=3), averages)


def names_in(store: SnapshotStore) -> list[str]:
    return sorted(path.name.removesuffix(".h5") for path in Path(store.prefix).parent.iterdir())


def test_write_with_averages_keeps_them_beside_the_model(
    averaged: Snapshot, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names_in(store) == [
        "net_iter_10.caffemodel",
        "net_iter_10.ema.caffemodel",
        "net_iter_10.manifest.json",
        "net_iter_10.solverstate",
    ]
    assert averaged.averages_path == store.averages_path(10)
    assert averaged.manifest is not None
    assert len(averaged.manifest.files) == 3


def test_write_with_averages_commits_them_before_the_manifest(
    store: SnapshotStore, layers: list[LayerRecord], manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, endings = os.replace, []

    def noting(source: Path, target: Path) -> None:
        endings.append(target.name.partition(".")[2].removesuffix(".h5"))
        real(source, target)

    monkeypatch.setattr(os, "replace", noting)
    store.write("small", layers, [], manifest, layers)
    assert endings == ["caffemodel", "ema.caffemodel", "solverstate", "manifest.json"]


def test_read_averages_gives_what_was_written(averaged: Snapshot, layers: list[LayerRecord]) -> None:
    opened = open_verified(str(averaged.state_path).partition(".solverstate")[0])
    assert opened == averaged
    assert opened.manifest is not None
    assert opened.manifest.num_averaged == 3
    for read, shift in ((opened.read_weights(), 0), (opened.read_averages(), 1)):
        blobs = {layer.name: layer.blobs for layer in read}
        for layer in layers:
            for got, want in zip(blobs[layer.parameter.name], layer.blobs, strict=True):
                np.testing.assert_array_equal(got, want + shift)


def test_read_averages_of_a_snapshot_without_them_is_nothing(write: Callable[[int], Snapshot]) -> None:
    assert write(10).averages_path is None
    assert write(10).read_averages() == []


def test_damaged_averages_make_the_snapshot_no_snapshot(averaged: Snapshot, store: SnapshotStore) -> None:
    assert averaged.averages_path is not None
    with open(averaged.averages_path, "ab") as file:
        file.write(b"\0")
    assert store.newest(report=lambda reason: None) is None
    with pytest.raises(
        UserError, match=r"\.ema\.caffemodel.*: file must be as its manifest says, got another"
    ):
        load_weights(averaged.averages_path)


def test_iterations_counts_averages_that_are_left_alone(store: SnapshotStore) -> None:
    folder = Path(store.prefix).parent
    folder.mkdir()
    for name in ("net_iter_7.ema.caffemodel", "net_iter_8.ema.solverstate", "net_iter_9.emacaffemodel"):
        (folder / name).touch()
    assert store.iterations() == [7]


@pytest.mark.parametrize(
    ("path", "kind", "parts"),
    [
        ("a/net_iter_5.ema.caffemodel", CAFFEMODEL, ("a/net_iter_5", ".ema.caffemodel")),
        ("net_iter_5.ema.caffemodel.h5", CAFFEMODEL, ("net_iter_5", ".ema.caffemodel.h5")),
        ("net.ema_iter_5.caffemodel", CAFFEMODEL, ("net.ema_iter_5", ".caffemodel")),
        ("net.ema.solverstate", SOLVERSTATE, ("net.ema", ".solverstate")),
    ],
)
def test_split_stem_knows_averages(path: str, kind: str, parts: tuple[str, str]) -> None:
    assert split_stem(path, kind) == parts


def test_mark_best_changes_the_manifest_alone(averaged: Snapshot, store: SnapshotStore) -> None:
    others = [path for path in Path(store.prefix).parent.iterdir() if "manifest" not in path.name]
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in others}
    monitor = MonitorState(10, 0.5, (4, 10))
    store.mark_best(10, monitor)
    assert averaged.manifest is not None
    assert store.find(10).manifest == replace(averaged.manifest, monitor=monitor, is_best=True)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in others} == before


def test_mark_best_of_no_snapshot_is_refused(store: SnapshotStore) -> None:
    with pytest.raises(UserError, match="net_iter_4.manifest.json: manifest must be readable"):
        store.mark_best(4, MonitorState())


def test_manifest_of_an_iteration_is_none_unless_it_is_good(averaged: Snapshot, store: SnapshotStore) -> None:
    assert store.manifest(10) == averaged.manifest
    assert store.manifest(11) is None
    Path(f"{store.prefix}_iter_10.manifest.json").write_text("{}")
    assert store.manifest(10) is None


def test_remove_takes_the_files_of_the_manifest_and_no_others(
    averaged: Snapshot, write: Callable[[int], Snapshot], store: SnapshotStore
) -> None:
    write(20)
    own = Path(store.prefix).parent / "net_iter_10.txt"
    own.touch()
    store.remove(10)
    assert names_in(store) == [
        "net_iter_10.txt",
        "net_iter_20.caffemodel",
        "net_iter_20.manifest.json",
        "net_iter_20.solverstate",
    ]
    with pytest.raises(UserError, match="net_iter_10.manifest.json: manifest must be readable"):
        store.remove(10)


def test_remove_leaves_the_manifest_for_last(
    averaged: Snapshot, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = Path.unlink, []

    def noting(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noting)
    store.remove(10)
    assert len(removed) == 4
    assert removed[-1] == "net_iter_10.manifest.json"


def test_remove_again_after_it_was_cut_short_ends_it(averaged: Snapshot, store: SnapshotStore) -> None:
    averaged.state_path.unlink()
    store.remove(10)
    assert names_in(store) == []
