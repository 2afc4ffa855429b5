"""Manifests in and out, and every damage to one."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import Manifest, MonitorState, decode_manifest
from dtrain.core.snapshots.checksum import FileRecord
from dtrain.core.snapshots.manifest import LossScaleState, read_manifest


@pytest.fixture
def path(tmp_path: Path, manifest: Manifest) -> Path:
    """A manifest with files and every kind of loss, on the disk."""
    whole = replace(manifest, files={".caffemodel": FileRecord(5, "crc32/4MiB:00112233")}, losses=(0.1, 1e-7))
    path = tmp_path / "x.manifest.json"
    path.write_bytes(whole.encode())
    return path


def test_manifest_written_and_read_is_equal(path: Path, manifest: Manifest) -> None:
    files = {".caffemodel": FileRecord(5, "crc32/4MiB:00112233")}
    assert read_manifest(path) == replace(manifest, files=files, losses=(0.1, 1e-7))


def test_manifest_losses_without_a_number_pass_as_valid_json(path: Path, manifest: Manifest) -> None:
    path.write_bytes(replace(manifest, losses=(math.inf, -math.inf, math.nan)).encode())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    losses = read_manifest(path).losses
    assert losses[:2] == (math.inf, -math.inf)
    assert math.isnan(losses[2])


def test_manifest_is_plain_json_with_its_version(path: Path) -> None:
    content = json.loads(path.read_text())
    assert (content["version"], content["positions"]) == (4, {"digits": 640})
    assert content["files"] == {".caffemodel": {"num_bytes": 5, "checksum": "crc32/4MiB:00112233"}}


def test_read_manifest_any_cut_or_flipped_bit_is_noticed(
    path: Path, damaged: Callable[[bytes], list[bytes]]
) -> None:
    good = path.read_bytes()
    for content in [*damaged(good), good + b"\n"]:
        path.write_bytes(content)
        with pytest.raises(UserError, match="manifest must be as it was written"):
            read_manifest(path)


def test_read_manifest_of_a_later_version_is_refused(path: Path) -> None:
    write_body(
        path, path.read_bytes().replace(b'"version": 4', b'"version": 5').rsplit(b'  "checksum"', 1)[0]
    )
    with pytest.raises(
        UserError, match="manifest's version must be at most 4, got 5; read it with the version of dtrain"
    ):
        read_manifest(path)


def write_body(path: Path, body: bytes) -> None:
    path.write_bytes(body + f'  "checksum": "crc32:{zlib.crc32(body):08x}"\n}}\n'.encode())


def test_read_manifest_of_version_1_has_the_defaults_of_what_came_later(
    path: Path, manifest: Manifest
) -> None:
    content = json.loads(path.read_text()) | {"version": 1}
    for later in ("num_averaged", "monitor", "is_best", "is_due", "loss_scale", "checksum"):
        del content[later]
    write_body(path, (json.dumps(content, indent=2).removesuffix("\n}") + ",\n").encode())
    read = read_manifest(path)
    assert read == replace(manifest, files=read.files, losses=(0.1, 1e-7))
    assert (read.num_averaged, read.monitor, read.is_best, read.is_due) == (0, MonitorState(), False, True)


def test_manifest_keeps_the_loss_scale_and_an_older_one_has_none(path: Path, manifest: Manifest) -> None:
    whole = replace(manifest, loss_scale=LossScaleState(4096.0, 17, 3))
    path.write_bytes(whole.encode())
    assert read_manifest(path) == whole
    content = json.loads(path.read_text()) | {"version": 3}
    del content["loss_scale"], content["checksum"]
    write_body(path, (json.dumps(content, indent=2).removesuffix("\n}") + ",\n").encode())
    assert read_manifest(path) == replace(manifest, version=4)


def test_read_manifest_of_version_2_is_as_today_s(path: Path) -> None:
    today = read_manifest(path)
    write_body(
        path, path.read_bytes().replace(b'"version": 4', b'"version": 2').rsplit(b'  "checksum"', 1)[0]
    )
    assert read_manifest(path) == today


@pytest.mark.parametrize("best", [None, 0.25, math.inf, -math.inf])
def test_manifest_keeps_how_the_tests_came_out(path: Path, manifest: Manifest, best: float | None) -> None:
    monitor = MonitorState(30, best, (10, 20), 1, 1, 2)
    whole = replace(manifest, monitor=monitor, num_averaged=7, is_best=True, is_due=False)
    path.write_bytes(whole.encode())
    assert read_manifest(path) == whole
    assert decode_manifest(whole.encode(), "x") == whole


def test_read_manifest_missing_or_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no.json: manifest must be readable, got: No such file or directory"):
        read_manifest(tmp_path / "no.json")
    with pytest.raises(UserError, match="manifest must be readable, got: Is a directory"):
        read_manifest(tmp_path)
