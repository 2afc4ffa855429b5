"""A picture: an image whose size is known before its pixels are computed.

Stands between the stored bytes and the transformer, which asks for no more rows than it needs. The codec makes
pictures of compressed images (image_codec.py), resizing makes pictures of pictures (image_resize.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

import numpy as np
from numpy.typing import NDArray

ImageShape = tuple[int, int, int]


class Colors(Enum):
    """Which channels a compressed image is decoded to.

    STORED: its own (grey 1, colours 3, with transparency 4); COLOR: blue, green, red; GRAY: one.
    """

    STORED = "stored"
    COLOR = "color"
    GRAY = "gray"


class Picture(ABC):
    """An image of `shape` (C, H, W), blue before green before red, whose pixels can be asked for.

    flaw: what was wrong with it and could be mended, known once the pixels have been asked for.
    """

    shape: ImageShape
    flaw: str = ""

    @abstractmethod
    def pixels(self, num_rows: int | None = None) -> NDArray[np.uint8]:
        """Return the pixels, uint8 (C, R, W), R = H or any number of first rows that is at least num_rows.

        The result may have any strides. Raises DataError when the image is damaged.
        """
