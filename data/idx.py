"""Reads IDX files, the format of MNIST and its relatives, gzip or not.

A converter reads them once; training never does. Format (http://yann.lecun.com/exdb/mnist): the bytes 0, 0, 8
and the number of axes, the size of each axis as a big-endian uint32, then the values as unsigned bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtrain.data.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_UBYTE_MAGIC = 0x0800  # the type unsigned byte; the number of axes is added


def read_idx(path: Path, num_axes: int) -> NDArray[np.uint8]:
    """Return the uint8 array of `num_axes` axes that an IDX file holds.

    Raises DataError when the file can't be read, is corrupt, has another magic or another size than it says.
    """
    content = _read_content(path)
    header_bytes = 4 * (1 + num_axes)
    magic = int.from_bytes(content[:4], "big")
    if len(content) < 4 or magic != _UBYTE_MAGIC + num_axes:
        raise DataError(f"{path}: magic must be 0x{_UBYTE_MAGIC + num_axes:08x}, got 0x{content[:4].hex()}")
    if len(content) < header_bytes:
        raise DataError(
            f"{path}: header must have {header_bytes} bytes, got {len(content)}; the file is truncated"
        )
    shape = struct.unpack(f">{num_axes}I", content[4:header_bytes])
    num_bytes = header_bytes + math.prod(shape)
    if len(content) != num_bytes:
        size = "x".join(map(str, shape))
        raise DataError(f"{path}: {size} values must take {num_bytes} bytes, got {len(content)}")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _read_content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: gzip file must be intact, got: {error}; download it again") from None
    except OSError as error:
        raise DataError(f"{path}: must be readable, got: {error.strerror}") from None
