"""Checksums, against zlib's over whole chunks, and the damage that they find."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from dtrain.core.snapshots.checksum import CHUNK_BYTES, FileRecord, RunningChecksum, find_damage


@pytest.fixture(scope="module")
def content() -> bytes:
    """Two whole chunks and ten bytes."""
    return np.random.default_rng(0).bytes(2 * CHUNK_BYTES + 10)


def record_of(content: bytes, *cuts: int) -> FileRecord:
    checksum = RunningChecksum()
    written = b""
    for start, end in zip((0, *cuts), (*cuts, len(content)), strict=True):
        written += b"".join(checksum.pieces(memoryview(content)[start:end]))
    assert written == content
    return checksum.record()


@pytest.mark.parametrize("cuts", [(), (1, 7), (CHUNK_BYTES,), (CHUNK_BYTES - 1, 2 * CHUNK_BYTES + 1)])
def test_record_is_each_chunks_crc_however_it_was_written(content: bytes, cuts: tuple[int, ...]) -> None:
    chunks = (content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES))
    expected = "crc32/4MiB:" + "".join(f"{zlib.crc32(chunk):08x}" for chunk in chunks)
    assert record_of(content, *cuts) == FileRecord(len(content), expected)


def test_find_damage_same_bytes_finds_none(content: bytes) -> None:
    assert find_damage(memoryview(content), record_of(content)) is None
    assert find_damage(memoryview(b""), record_of(b"")) is None


@pytest.mark.parametrize(
    ("position", "first", "last"),
    [
        (0, 0, CHUNK_BYTES - 1),
        (CHUNK_BYTES + 5, CHUNK_BYTES, 2 * CHUNK_BYTES - 1),
        (2 * CHUNK_BYTES + 9, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 9),
    ],
)
def test_find_damage_flipped_bit_is_placed(content: bytes, position: int, first: int, last: int) -> None:
    flipped = bytearray(content)
    flipped[position] ^= 0x10
    damage = find_damage(memoryview(flipped), record_of(content))
    assert damage == f"its bytes {first} to {last} are not those written"


def test_find_damage_other_size_is_named(content: bytes) -> None:
    damage = find_damage(memoryview(content)[:-1], record_of(content))
    assert damage == f"it has {len(content) - 1} bytes where {len(content)} were written"


def test_find_damage_unknown_checksum_is_named() -> None:
    assert (
        find_damage(memoryview(b"x"), FileRecord(1, "sha3:00"))
        == 'its checksum is of the unknown kind "sha3"'
    )
