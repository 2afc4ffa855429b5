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
from dtrain.core.snapshots import Manifest
from dtrain.core.snapshots.checksum import FileRecord
from dtrain.core.snapshots.manifest import read_manifest


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
    assert (content["version"], content["positions"]) == (1, {"digits": 640})
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
    body = path.read_bytes().replace(b'"version": 1', b'"version": 2').rsplit(b'  "checksum"', 1)[0]
    path.write_bytes(body + f'  "checksum": "crc32:{zlib.crc32(body):08x}"\n}}\n'.encode())
    with pytest.raises(
        UserError, match="manifest's version must be 1, got 2; read it with the version of dtrain"
    ):
        read_manifest(path)


def test_read_manifest_missing_or_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no.json: manifest must be readable, got: No such file or directory"):
        read_manifest(tmp_path / "no.json")
    with pytest.raises(UserError, match="manifest must be readable, got: Is a directory"):
        read_manifest(tmp_path)
