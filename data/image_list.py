"""Reads an image list: a text file with the path of an image and its label on each line.

What ImageData reads first; the images themselves are read later, each when its turn comes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtrain.data.errors import DataError

_LABEL = re.compile(r"[+-]?[0-9]{1,18}\s*", re.ASCII)  # Python refuses to read numbers of thousands of digits
_INT32 = np.iinfo(np.int32)


class ImageList:
    """The images that the list `path` names, numbered from 0.

    paths: as the lines have them; a path may have blanks. labels: int32 (N,).

    Raises DataError, with the line, when the list can't be read, is empty or has a line of another form. Follows
    caffe's image_data_layer.cpp, which splits at the last blank, but takes what is no number for label 0.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # Names of files are bytes; those that are no text come through unchanged.
            text = Path(path).read_text("utf-8", "surrogateescape")
        except OSError as error:
            raise DataError(f"{path}: image list must be readable, got: {error.strerror}") from None
        lines = text.removesuffix("\n").split("\n") if text else []
        if not lines:
            raise DataError(f"{path}: image list must have at least one line, got none")
        self.paths: list[str] = []
        labels = []
        for number, line in enumerate(lines, 1):
            name, _, label = line.rpartition(" ")
            if not name or not _LABEL.fullmatch(label) or not _INT32.min <= int(label) <= _INT32.max:
                shown = line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                raise DataError(
                    f'{path}:{number}: line must be a path, a blank and a whole number as label, got "{shown}"'
                )
            self.paths.append(name)
            labels.append(int(label))
        self.labels: NDArray[np.int32] = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self.paths)

    def line(self, index: int) -> str:
        """Return where image `index` is named: train.txt:8."""
        return f"{self.path}:{index + 1}"


def read_file(path: str) -> bytes:
    """Return what is in an image file. Raises DataError when it can't be read; the message begins with its path."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise DataError(f"{shown}: image must be readable, got: {reason}") from None
