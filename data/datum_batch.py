"""Many Datums cut at once: the short way for small records that are all laid out as protobuf writes them.

Between source and transformer. One comparison over the whole batch takes the place of parsing each record,
which matters when a record is a digit of 784 bytes. Records of any other layout are left to parse_datum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dtrain.data.datum import ENCODED_TAG, LABEL_TAG, encode_header

# Above this the copy into one block costs more than parsing saves.
MAX_RECORD_BYTES = 1 << 14

_NUM_LABEL_BYTES = 2  # tag, and a value below 128
_TAILS = (b"", bytes([ENCODED_TAG, 0]))  # what may follow the label


class CanonicalLayout:
    """How protobuf lays out a record of `shape` (C, H, W).

    Fields in the order of their numbers: channels, height, width, data, label, perhaps encoded = false.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._header = np.frombuffer(encode_header(*shape), np.uint8)
        self._label_at = len(self._header) + shape[0] * shape[1] * shape[2]

    def slice_batch(
        self, records: Sequence[memoryview]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Return images (N, C, H, W) and labels (N,), or None when a record is large or of another layout."""
        size = len(records[0])
        if size > MAX_RECORD_BYTES or size < self._label_at + _NUM_LABEL_BYTES:
            return None
        if any(len(record) != size for record in records):
            return None
        table = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), size)
        if not self._fits(table):
            return None
        images = table[:, len(self._header) : self._label_at].reshape(len(records), *self._shape)
        return images, table[:, self._label_at + 1]

    def _fits(self, table: NDArray[np.uint8]) -> bool:
        tails = table[:, self._label_at + _NUM_LABEL_BYTES :]
        return bool(
            tails[0].tobytes() in _TAILS
            and (tails == tails[0]).all()
            and (table[:, : len(self._header)] == self._header).all()
            and (table[:, self._label_at] == LABEL_TAG).all()
            and (table[:, self._label_at + 1] < 0x80).all()
        )
