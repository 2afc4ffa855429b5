"""Reads a window file: images and the windows in each, with class and overlap, as R-CNN writes them.

What WindowData reads first. For each image, on lines of their own: `# number`, path, channels, height, width, the
number of windows; then a line `class overlap x1 y1 x2 y2` for each window, in pixels from 0, both ends inside.
Follows caffe's window_data_layer.cpp.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from dtrain.data.errors import DataError

_HEADER_SIZE = 7  # "#", number, path, channels, height, width, number of windows
_PATH, _CHANNELS, _NUM_WINDOWS = 2, 3, 6
_WINDOW_SIZE = 6
_OVERLAP, _WHOLE_NUMBERS = 1, [0, 2, 3, 4, 5]
_INT32 = np.iinfo(np.int32)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)


class _Block(NamedTuple):
    """An image's path, its windows as float64 (N, 6), and the line of the first."""

    path: str
    windows: NDArray[np.float64]
    first_line: int


class WindowFile:
    """The windows of `path` that are foreground or background, in the order of the file.

    A window is foreground where its overlap is at least fg_threshold; else background, and then of class 0, where
    it is below bg_threshold; others are left out. foreground, background: the numbers of these windows.
    image_paths: of all images. Of each window: images, the number of its image; labels; boxes, (N, 4), x1 y1 x2
    y2; lines, where it stands; all int64.

    Raises DataError, with the line, when the file can't be read, is empty or has another form.
    """

    def __init__(self, path: str, fg_threshold: float = 0.5, bg_threshold: float = 0.5) -> None:
        self.path = path
        self.image_paths: list[str] = []
        tables = [np.empty((0, _WINDOW_SIZE + 2), np.int64)]
        for block in self._read():
            self._check(block)
            table = self._select(block, np.float32(fg_threshold), np.float32(bg_threshold))
            tables.append(table)
            self.image_paths.append(block.path)
        if not self.image_paths:
            raise DataError(f"{path}: window file must have at least one image, got none")
        table = np.concatenate(tables)
        self.images, self.labels, self.boxes, self.lines = (
            table[:, 0],
            table[:, 1],
            table[:, 2:6],
            table[:, 6],
        )
        self.foreground, self.background = np.flatnonzero(table[:, 7]), np.flatnonzero(table[:, 7] == 0)

    def __len__(self) -> int:
        return len(self.lines)

    def line(self, window: int) -> str:
        """Return where a window stands: windows.txt:9."""
        return f"{self.path}:{self.lines[window]}"

    def _read(self) -> Iterator[_Block]:
        try:
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                yield from self._read_blocks(file)
        except OSError as error:
            raise DataError(f"{self.path}: window file must be readable, got: {error.strerror}") from None

    def _read_blocks(self, file: TextIO) -> Iterator[_Block]:
        line, number = 0, 0
        while True:
            header: list[str] = []
            while len(header) < _HEADER_SIZE:
                text = file.readline()
                if not text:
                    if header:
                        raise self._error(line, "file must not end within the six lines that open an image")
                    return
                line += 1
                header += text.split()
            self._check_header(header, number, line)
            num_windows = int(header[_NUM_WINDOWS])
            lines = list(islice(file, num_windows))
            windows = self._parse(lines, line + 1)
            if len(windows) < num_windows:
                raise self._error(line + len(lines), f"{num_windows} windows must follow, got {len(windows)}")
            yield _Block(header[_PATH], windows, line + 1)
            line += num_windows
            number += 1

    def _check_header(self, header: Sequence[str], number: int, line: int) -> None:
        numbers = [*header[1:_PATH], *header[_CHANNELS:]]
        if len(header) != _HEADER_SIZE or header[0] != "#" or not all(map(_COUNT.fullmatch, numbers)):
            raise self._error(
                line,
                "an image must begin with `# number`, path, channels, height, width and the number of windows, "
                f"each on its line, got {_show(' '.join(header))}",
            )
        if int(header[1]) != number:
            raise self._error(line, f"images must be numbered 0, 1, 2 …, got {header[1]} for {number}")
        if header[_CHANNELS] != "3":
            raise self._error(
                line, f"channels must be 3, as images are read in colour, got {header[_CHANNELS]}"
            )

    def _parse(self, lines: list[str], first_line: int) -> NDArray[np.float64]:
        if not "".join(lines).strip():
            return np.empty((0, _WINDOW_SIZE))
        try:
            windows = np.loadtxt(lines, ndmin=2, comments=None)
        except ValueError:
            windows = np.empty((0, 0))
        if windows.shape == (len(lines), _WINDOW_SIZE) and np.isfinite(windows).all():
            return windows
        place = next((place for place, line in enumerate(lines) if not _is_window(line)), 0)
        raise self._error(
            first_line + place,
            f"window must be six numbers, class overlap x1 y1 x2 y2, got {_show(lines[place].strip())}",
        )

    def _check(self, block: _Block) -> None:
        """Check what is written in the windows of an image."""
        numbers = block.windows[:, _WHOLE_NUMBERS]
        is_whole = (numbers == np.floor(numbers)) & (numbers >= _INT32.min) & (numbers <= _INT32.max)
        x1, y1, x2, y2 = block.windows[:, 2:].T
        for what, is_right in (
            ("class and box must be whole numbers", is_whole.all(axis=1)),
            ("x1 must be at most x2, and y1 at most y2", (x1 <= x2) & (y1 <= y2)),
        ):
            if not is_right.all():
                place = int(np.argmin(is_right))
                got = " ".join(f"{value:g}" for value in block.windows[place])
                raise self._error(block.first_line + place, f"{what}, got {got}")

    def _select(self, block: _Block, fg_threshold: np.float32, bg_threshold: np.float32) -> NDArray[np.int64]:
        """Return a row for each window to keep: image, label, box, line, whether foreground."""
        overlaps = block.windows[:, _OVERLAP].astype(np.float32)
        numbers = block.windows[:, _WHOLE_NUMBERS].astype(np.int64)
        is_foreground = overlaps >= fg_threshold
        lines = block.first_line + np.arange(len(overlaps))
        nameless = is_foreground & (numbers[:, 0] <= 0)
        if nameless.any():
            place = int(np.argmax(nameless))
            raise self._error(
                int(lines[place]),
                f"class of a window of overlap {overlaps[place]:g} must be at least 1, got {numbers[place, 0]}",
            )
        numbers[~is_foreground, 0] = 0
        images = np.full(len(overlaps), len(self.image_paths))
        table = np.column_stack([images, numbers, lines, is_foreground])
        return table[is_foreground | (overlaps < bg_threshold)]

    def _error(self, line: int, problem: str) -> DataError:
        return DataError(f"{self.path}:{line}: {problem}")


def _is_window(line: str) -> bool:
    try:
        return len(line.split()) == _WINDOW_SIZE and bool(np.isfinite(list(map(float, line.split()))).all())
    except ValueError:
        return False


def _show(text: str) -> str:
    return '"' + os.fsencode(text).decode("utf-8", "backslashreplace") + '"'
