"""A snapshot is verified whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import LayerRecord, Snapshot, SnapshotStore
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE
from dtrain.core.snapshots.snapshot import open_verified, split_stem

Write = Callable[[int], Snapshot]


def stem_of(snapshot: Snapshot) -> str:
    return str(snapshot.state_path).removesuffix(".h5").removesuffix(".solverstate")


def ending_of(kind: str, store: SnapshotStore) -> str:
    """Return what follows the stem of a file of this kind: ".caffemodel" or ".caffemodel.h5"."""
    return kind + store.format.suffix * (kind != ".manifest.json")


def test_open_verified_gives_what_was_written(
    write: Write, layers: list[LayerRecord], history: list[np.ndarray]
) -> None:
    written = write(10)
    opened = open_verified(stem_of(written))
    assert opened == written
    weights, state = {layer.name: layer.blobs for layer in opened.read_weights()}, opened.read_state()
    assert all(np.array_equal(weights[layers[i].parameter.name][0], layers[i].blobs[0]) for i in (0, 2))
    assert (state.iter, state.current_step, state.learned_net) == (10, 1, str(written.model_path))
    assert [got.tolist() for got in state.history] == [want.tolist() for want in history]


@pytest.mark.parametrize("ending", [".caffemodel", ".solverstate"])
def test_open_verified_any_cut_or_flipped_bit_is_noticed(
    write: Write, store: SnapshotStore, ending: str, damaged: Callable[[bytes], list[bytes]]
) -> None:
    stem = stem_of(write(10))
    path = Path(stem + ending_of(ending, store))
    good = path.read_bytes()
    for content in damaged(good)[:: 1 + len(good) // 100]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{path}: file must be"):
            open_verified(stem)


def test_open_verified_damage_is_explained_with_a_fix(write: Write, store: SnapshotStore) -> None:
    stem, ending = stem_of(write(10)), ending_of(".caffemodel", store)
    with open(stem + ending, "ab") as file:
        file.write(b"\0")
    size = Path(stem + ending).stat().st_size
    with pytest.raises(UserError) as error:
        open_verified(stem)
    assert str(error.value) == (
        f"{stem}{ending}: file must be as its manifest says, got another: "
        f"it has {size} bytes where {size - 1} were written; "
        f"use another snapshot, or remove {stem}.manifest.json if the file was replaced on purpose"
    )


@pytest.mark.parametrize("ending", [".caffemodel", ".solverstate", ".manifest.json"])
def test_open_verified_missing_file_is_named(write: Write, store: SnapshotStore, ending: str) -> None:
    stem = stem_of(write(10))
    path = Path(stem + ending_of(ending, store))
    path.unlink()
    with pytest.raises(UserError, match=f"^{path}: "):
        open_verified(stem)


def test_open_verified_files_renamed_together_are_accepted(
    write: Write, store: SnapshotStore, tmp_path: Path
) -> None:
    stem = stem_of(write(10))
    for kind in (".caffemodel", ".solverstate", ".manifest.json"):
        ending = ending_of(kind, store)
        Path(stem + ending).rename(tmp_path / f"best{ending}")
    assert open_verified(f"{tmp_path}/best").model_path == tmp_path / f"best{ending_of('.caffemodel', store)}"


def test_snapshot_without_model_has_no_weights(tmp_path: Path) -> None:
    assert Snapshot(tmp_path / "x.solverstate", None, None).read_weights() == []


@pytest.mark.parametrize(
    ("path", "kind", "split"),
    [
        ("a/net_iter_5.solverstate", SOLVERSTATE, ("a/net_iter_5", ".solverstate")),
        (Path("net.caffemodel"), CAFFEMODEL, ("net", ".caffemodel")),
        ("a/net_iter_5.solverstate.h5", SOLVERSTATE, ("a/net_iter_5", ".solverstate.h5")),
        ("net.caffemodel.h5", CAFFEMODEL, ("net", ".caffemodel.h5")),
        ("net.caffemodel.h5", SOLVERSTATE, None),
        ("net.h5", CAFFEMODEL, None),
        ("net.caffemodel", SOLVERSTATE, None),
        ("a.solverstate/weights", SOLVERSTATE, None),
    ],
)
def test_split_stem_by_kind(path: str | Path, kind: str, split: tuple[str, str] | None) -> None:
    assert split_stem(path, kind) == split
