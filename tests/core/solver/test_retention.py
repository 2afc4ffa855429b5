from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from dtrain.core.snapshots import LayerRecord, Manifest, SnapshotStore
from dtrain.core.solver.retention import Retention
from dtrain.proto import caffe_pb2


def manifest_of(iteration: int, kind: str = "due") -> Manifest:
    """kind: due, best, or both."""
    return Manifest(
        *(iteration, 1, {}, {}, 0, 0, 0, (), 0),
        is_best=kind in ("best", "both"),
        is_due=kind in ("due", "both"),
    )


@pytest.mark.parametrize(
    ("keep_best", "keep_last", "kinds", "best", "expired"),
    [
        (0, 2, {1: "due", 2: "due", 3: "due", 4: "due"}, [], [1, 2]),
        (0, 4, {1: "due", 2: "due"}, [], []),
        (0, 1, {1: "due", 10: "due", 9: "due"}, [], [1, 9]),
        (2, 0, {1: "best", 2: "due", 3: "best", 4: "best"}, [1, 3, 4], [1]),
        (1, 0, {1: "best", 3: "best", 4: "best"}, [1, 3, 4], [1, 3]),
        # the best ones do not count among the last
        (1, 3, {1: "due", 2: "best", 3: "due", 4: "due"}, [2], []),
        (1, 1, {1: "due", 2: "best", 3: "due", 4: "due"}, [2], [1, 3]),
        # outdone, but due anyway: it counts among the others
        (1, 0, {2: "both", 4: "both"}, [2, 4], []),
        (1, 1, {2: "both", 3: "due", 4: "both"}, [2, 4], [2]),
        (1, 2, {2: "both", 3: "due", 4: "both"}, [2, 4], []),
        # the best of another run, and of this one before keep_best was taken out
        (1, 1, {1: "best", 2: "best", 3: "due", 4: "best"}, [2, 4], [2]),
        (0, 1, {1: "best", 2: "best", 3: "due", 4: "due"}, [1, 2], [3]),
        # scores that were the best where no snapshot was kept for them
        (2, 1, {1: "due", 2: "due", 3: "best"}, [1, 2, 3], [1]),
    ],
)
def test_expired_are_all_but_the_best_and_the_last(
    keep_best: int, keep_last: int, kinds: dict[int, str], best: Sequence[int], expired: list[int]
) -> None:
    manifests = {iteration: manifest_of(iteration, kind) for iteration, kind in kinds.items()}
    assert Retention(keep_best, keep_last).expired(manifests, best) == expired


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    """Return a store with snapshots of the iterations 1 to 5, the even ones with averages."""
    store = SnapshotStore(tmp_path / "net")
    layers = [LayerRecord(caffe_pb2.LayerParameter(name="a"), [])]
    for iteration in range(1, 6):
        store.write("n", layers, [], manifest_of(iteration), layers if iteration % 2 == 0 else ())
    return store


def iterations_of(folder: Path) -> set[int]:
    return {int(path.name.split("_")[-1].split(".")[0]) for path in folder.iterdir()}


def test_apply_removes_all_files_of_what_is_not_kept(
    store: SnapshotStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        Retention(0, 2).apply(store, 5, [])
    assert iterations_of(tmp_path) == {4, 5}
    assert len(list(tmp_path.iterdir())) == 4 + 3
    assert caplog.messages == [f"Removed the snapshot of iteration {n}" for n in (1, 2, 3)]


def test_apply_without_limits_removes_nothing(store: SnapshotStore, tmp_path: Path) -> None:
    Retention(0, 0).apply(store, 5, [1, 2])
    assert iterations_of(tmp_path) == {1, 2, 3, 4, 5}


def test_apply_leaves_later_ones_which_another_run_wrote(store: SnapshotStore, tmp_path: Path) -> None:
    Retention(0, 1).apply(store, 3, [])
    assert iterations_of(tmp_path) == {3, 4, 5}


def test_apply_leaves_what_dtrain_did_not_write(store: SnapshotStore, tmp_path: Path) -> None:
    os.unlink(tmp_path / "net_iter_1.manifest.json")  # as Caffe leaves it, or a crash
    (tmp_path / "net_iter_2.manifest.json").write_text("{}")
    foreign = [
        "net_iter_3.caffemodel.gz",
        "net_iter_3.txt",
        "other_iter_3.caffemodel",
        "net_iter_03.caffemodel",
    ]
    for name in foreign:
        (tmp_path / name).touch()
    Retention(0, 1).apply(store, 5, [])
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {*foreign, "net_iter_1.caffemodel", "net_iter_2.caffemodel", "net_iter_2.manifest.json"}
    assert "net_iter_3.caffemodel" not in left
    assert "net_iter_4.manifest.json" not in left


def test_apply_says_what_it_cannot_remove_and_goes_on(
    store: SnapshotStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.unlink(tmp_path / "net_iter_2.caffemodel")
    (tmp_path / "net_iter_2.caffemodel").mkdir()
    Retention(0, 2).apply(store, 5, [])
    assert iterations_of(tmp_path) == {2, 4, 5}
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert message.startswith(f"cannot remove {tmp_path}/net_iter_2.caffemodel, which is no longer kept: ")
