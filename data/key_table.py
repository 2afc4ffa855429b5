"""The keys of a database in one piece of memory, which may be a file's: what is read by number is found by key.

Below the record sources. A list of a million keys takes ten times the memory of the keys, in every rank; packed,
they are one array, which all ranks of a host can map from one file (key_index.py).

    header │ the keys, end to end │ where each ends, int64, unless all are of one length

The header begins with a magic word and has the number of keys, their common length, the stamp of the database that
they are of, and a checksum of everything else.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable
from itertools import islice
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

STAMP_BYTES = 32

_MAGIC = b"dtkeys01"
_HEADER = struct.Struct(f"<8sQQ{STAMP_BYTES}sQ")  # magic, number, length of each or 0, stamp, checksum
_NUM_PACKED_AT_ONCE = 1 << 14
_END = np.dtype("<i8")


class KeyTable:
    """The keys of records 0 … len − 1, found by number.

    packed: what pack_keys wrote, bytes or a map of them, which the table shares.
    Raises ValueError when they are damaged.
    """

    def __init__(self, packed: memoryview) -> None:
        if len(packed) < _HEADER.size:
            raise ValueError(f"keys must have a header of {_HEADER.size} bytes, got {len(packed)} bytes")
        magic, self._num_keys, self._width, self.stamp, checksum = _HEADER.unpack_from(packed)
        body = packed[_HEADER.size :]
        if magic != _MAGIC or checksum != _checksum(packed[: _HEADER.size - 8], zlib.crc32(body)):
            raise ValueError("keys must be as they were written, got other bytes")
        self._keys = body
        self._ends: NDArray[np.int64] | None = None
        if not self._width and self._num_keys:
            first = len(body) - self._num_keys * _END.itemsize
            self._keys, self._ends = body[:first], np.frombuffer(body[first:], _END)

    def __len__(self) -> int:
        return int(self._num_keys)

    def __getitem__(self, index: int) -> bytes:
        """Return key `index`, 0 … len − 1."""
        if not 0 <= index < self._num_keys:
            raise IndexError(f"key must be one of 0 … {self._num_keys - 1}, got {index}")
        if self._ends is None:
            return bytes(self._keys[index * self._width : (index + 1) * self._width])
        first = int(self._ends[index - 1]) if index else 0
        return bytes(self._keys[first : int(self._ends[index])])


def pack_keys(keys: Iterable[bytes], stamp: bytes, out: BinaryIO) -> None:
    """Write `keys` (each of 1 to 65,535 bytes) to the empty file `out` as KeyTable wants them, a few at a time.

    stamp: STAMP_BYTES bytes that say which database the keys are of.
    """
    assert len(stamp) == STAMP_BYTES, f"a stamp has {STAMP_BYTES} bytes, got {len(stamp)}"
    out.write(bytes(_HEADER.size))
    lengths, crc, remaining = array("H"), 0, iter(keys)
    while chunk := list(islice(remaining, _NUM_PACKED_AT_ONCE)):
        lengths.extend(map(len, chunk))
        crc = _write(out, b"".join(chunk), crc)
    widths = np.frombuffer(lengths, np.uint16) if lengths else np.zeros(1, np.uint16)
    width = int(widths[0])
    if (widths != width).any():
        width = 0
        crc = _write(out, np.cumsum(widths, dtype=_END).tobytes(), crc)
    header = _HEADER.pack(_MAGIC, len(lengths), width, stamp, 0)[:-8]
    out.seek(0)
    out.write(header + struct.pack("<Q", _checksum(header, crc)))


def _write(out: BinaryIO, data: bytes, crc: int) -> int:
    out.write(data)
    return zlib.crc32(data, crc)


def _checksum(header: bytes | memoryview, crc: int) -> int:
    return zlib.crc32(header) << 32 | crc
