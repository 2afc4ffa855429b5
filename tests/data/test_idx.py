"""Tests of data/idx.py."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from dtrain.data.errors import DataError
from dtrain.data.idx import read_idx

IMAGES = struct.pack(">4I", 0x803, 2, 1, 3) + bytes(range(6))
LABELS = struct.pack(">2I", 0x801, 3) + bytes([7, 8, 9])


@pytest.mark.parametrize("is_gzip", [False, True])
def test_read_idx_of_a_good_file_returns_its_values(tmp_path: Path, is_gzip: bool) -> None:
    for name, content in (("images", IMAGES), ("labels", LABELS)):
        (tmp_path / name).write_bytes(gzip.compress(content) if is_gzip else content)
    assert read_idx(tmp_path / "images", 3).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    assert read_idx(tmp_path / "labels", 1).tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "magic must be 0x00000803, got 0x"),
        (b"\x00\x00", "magic must be 0x00000803, got 0x0000"),
        (LABELS, "magic must be 0x00000803, got 0x00000801"),
        (b"\x89PNG\r\n", "magic must be 0x00000803, got 0x89504e47"),
        (IMAGES[:15], "header must have 16 bytes, got 15; the file is truncated"),
        (IMAGES[:-1], "2x1x3 values must take 22 bytes, got 21"),
        (IMAGES + b"x", "2x1x3 values must take 22 bytes, got 23"),
        (
            struct.pack(">4I", 0x803, *[0xFFFFFFFF] * 3),
            "must take 79228162458924105385300197391 bytes, got 16",
        ),
        (gzip.compress(IMAGES, mtime=0)[:-9], "gzip file must be intact, got: "),
        (gzip.compress(IMAGES, mtime=0)[:-5] + b"wrong", "gzip file must be intact, got: "),
        (gzip.compress(IMAGES, mtime=0)[:12] + bytes(30), "gzip file must be intact, got: "),
    ],
)
def test_read_idx_of_a_wrong_file_says_what(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "file", 3)
    assert caught.value.problem.startswith(f"{tmp_path / 'file'}: ")
    assert complaint in caught.value.problem


def test_read_idx_of_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no: must be readable, got: No such file or directory$"):
        read_idx(tmp_path / "no", 3)
