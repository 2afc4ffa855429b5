"""What layers carry from batch to batch, in a file of the snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import LayerRecord, LayerState, Manifest, Snapshot, SnapshotStore
from dtrain.core.snapshots.carried import decode_carried, encode_carried, read_carried
from dtrain.core.snapshots.snapshot import open_verified

RANKS: list[list[LayerState]] = [
    [("lstm1", bytes(range(7))), ("größe/2", b""), ("lstm1", b"\n{}\n")],
    [("lstm1", b"x"), ("größe/2", b"yy"), ("lstm1", b"")],
]


def encoded(ranks: list[list[LayerState]]) -> bytes:
    return b"".join(map(bytes, encode_carried(ranks)))


@pytest.mark.parametrize("ranks", [RANKS, [], [[]], [[("a", b"")]]], ids=len)
def test_carried_written_and_read_is_equal(tmp_path: Path, ranks: list[list[LayerState]]) -> None:
    path = tmp_path / "x.carried"
    path.write_bytes(encoded(ranks))
    assert read_carried(path) == decode_carried(encoded(ranks)) == ranks


def test_carried_says_in_its_first_line_what_follows() -> None:
    assert encoded([[("a", b"xyz")], [("a", b"")]]) == b'[[["a", 3]], [["a", 0]]]\nxyz'


def test_read_carried_that_is_cut_is_refused(tmp_path: Path) -> None:
    whole = encoded(RANKS)
    path = tmp_path / "x.carried"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"x.carried: file must be a whole .carried, got other bytes"):
            read_carried(path)


@pytest.mark.parametrize(
    "content",
    [
        b"3\n",
        b"[3]\n",
        b"[[3]]\n",
        b'[[["a", "b"]]]\n',
        b"\xff\n",
        b"[[[]]]\n",
        b'[[["a", -1]]]\n',
        b"[" * 100_000,
    ],
)
def test_read_carried_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.carried"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.carried: file must be a whole .carried, got other bytes"):
        read_carried(path)


# -- in a snapshot -----------------------------------------------------------------------------------------


@pytest.fixture
def carrying(store: SnapshotStore, layers: list[LayerRecord], manifest: Manifest) -> Snapshot:
    """A snapshot of iteration 10 with what two ranks carry."""
    return store.write("small", layers, [], manifest, carried=RANKS)


def test_write_with_carried_states_commits_them_before_the_manifest(
    store: SnapshotStore, layers: list[LayerRecord], manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, endings = os.replace, []

    def noting(source: Path, target: Path) -> None:
        endings.append(target.name.partition(".")[2].removesuffix(".h5"))
        real(source, target)

    monkeypatch.setattr(os, "replace", noting)
    store.write("small", layers, [], manifest, carried=RANKS)
    assert endings == ["caffemodel", "carried", "solverstate", "manifest.json"]


def test_read_carried_of_a_snapshot_gives_what_was_written(carrying: Snapshot) -> None:
    opened = open_verified(str(carrying.state_path).partition(".solverstate")[0])
    assert opened == carrying
    assert opened.manifest is not None
    assert ".carried" in opened.manifest.files
    assert opened.read_carried() == RANKS


def test_read_carried_of_a_snapshot_without_is_no_rank(write: Callable[[int], Snapshot]) -> None:
    snapshot = write(10)
    assert (snapshot.carried_path, snapshot.read_carried()) == (None, [])


def test_damaged_carried_states_make_the_snapshot_no_snapshot(
    carrying: Snapshot, store: SnapshotStore
) -> None:
    assert carrying.carried_path is not None
    content = bytearray(carrying.carried_path.read_bytes())
    content[-1] ^= 1
    carrying.carried_path.write_bytes(content)
    said: list[str] = []
    assert store.newest(report=said.append) is None
    assert "net_iter_10.carried: file must be as its manifest says, got another" in said[0]
    carrying.carried_path.unlink()
    assert store.newest(report=said.append) is None
    assert store.iterations() == [10]


def test_remove_takes_carried_states_too(carrying: Snapshot, store: SnapshotStore) -> None:
    store.remove(10)
    assert list(Path(store.prefix).parent.iterdir()) == []


def test_iterations_counts_carried_states_that_are_left_alone(store: SnapshotStore) -> None:
    folder = Path(store.prefix).parent
    folder.mkdir()
    for name in ("net_iter_7.carried", "net_iter_8.carried.h5x", "net_iter_9.carry"):
        (folder / name).touch()
    assert store.iterations() == [7]
