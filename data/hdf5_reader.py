"""Reads batches from HDF5 files: rows of their datasets, which are never read as a whole.

The batch reader of the HDF5Data layer. Follows caffe's hdf5_data_layer.cpp, which reads whole files and shuffles
files and the rows within each; here the order is a function of (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Batch, Shape
from dtrain.data.batch_reader import BatchReader
from dtrain.data.epoch_order import Blocks
from dtrain.data.errors import DataError
from dtrain.data.hdf5_library import hdf5_errors, open_hdf5
from dtrain.data.sampler import Sampler

_NUM_OPEN_FILES = 8
_CHUNK_CACHE_BYTES = (
    32 << 20
)  # rows of a compressed file come chunk by chunk; shuffled ones come back to them


class Hdf5Reader(BatchReader):
    """Reads one array for each of `names` from the datasets of these names in the HDF5 files `paths`.

    Files follow one another in their order, rows in theirs; with `shuffle` both are permuted anew in each epoch.
    All datasets of a file have as many rows (axis 0), and a dataset's rows are of one shape in all files.

    Raises DataError when a file is missing, damaged, or has other datasets than these rules allow.
    """

    def __init__(
        self, paths: Sequence[str], names: Sequence[str], shuffle: bool = False, seed: int = 0
    ) -> None:
        assert paths, "an Hdf5Reader needs at least one file"
        self._paths = list(paths)
        self._names = list(names)
        self._open: dict[int, Any] = {}
        self.shapes: tuple[Shape, ...] = ()
        try:
            counts = [self._check_file(file) for file in range(len(paths))]
        except BaseException:
            self.close()
            raise
        self.num_records = sum(counts)
        if not self.num_records:
            raise DataError(f"{paths[0]}: HDF5 files must have at least one row, got none")
        files = Blocks.of_sizes(counts)
        self._sampler = Sampler(self.num_records, seed, shuffle, files)
        self._starts = files.bounds[:-1]

    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        """Fill `batch`: the rows of each file in runs, of which each is one read."""
        batch.epochs[:], batch.indices[:] = self._sampler.records(positions)
        files = self._files_of(batch.indices)
        rows = batch.indices - self._starts[files]
        for file in np.unique(files).tolist():
            places = np.flatnonzero(files == file)
            self._read_file(file, rows[places], places, batch)

    def reseed(self, seed: int) -> None:
        """Shuffle by another seed from now on."""
        self._sampler.reseed(seed)

    def name_record(self, index: int) -> str:
        """Return row and file."""
        file = int(self._files_of(np.array([index]))[0])
        return f"row {index - self._starts[file]} of {self._paths[file]}"

    def close(self) -> None:
        """Close the files that are open."""
        while self._open:
            self._open.popitem()[1].close()

    def _files_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the files of rows, which are counted over all files."""
        return np.searchsorted(self._starts, indices, side="right") - 1

    def _check_file(self, file: int) -> int:
        """Return the number of rows of a file; learn or check the shapes of its rows."""
        path = self._paths[file]
        with hdf5_errors(path):
            contents = self._file(file)
            found = [contents.get(name) for name in self._names]
            missing = [
                name for name, data in zip(self._names, found, strict=True) if not hasattr(data, "dtype")
            ]
            if missing:
                raise DataError(
                    f'{path}: must have a dataset for each top, got none called "{missing[0]}"; '
                    f"it has {', '.join(contents) or 'nothing'}"
                )
            shapes = [tuple(data.shape) for data in found]
            kinds = [data.dtype.kind for data in found]
        for name, shape, kind in zip(self._names, shapes, kinds, strict=True):
            if kind not in "fiu" or not shape:
                raise DataError(
                    f'{path}: dataset "{name}" must hold rows of numbers, got {shape} of "{kind}"'
                )
        if len({shape[0] for shape in shapes}) > 1:
            raise DataError(
                f"{path}: all datasets must have as many rows, got "
                + ", ".join(f"{shape[0]} of {name}" for name, shape in zip(self._names, shapes, strict=True))
            )
        of_rows = tuple(shape[1:] for shape in shapes)
        if self.shapes and of_rows != self.shapes:
            raise DataError(
                f"{path}: rows must be shaped like those of {self._paths[0]}, {self.shapes}, got {of_rows}"
            )
        self.shapes = of_rows
        return int(shapes[0][0])

    def _read_file(self, file: int, rows: NDArray[np.int64], places: NDArray[np.int64], batch: Batch) -> None:
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        with hdf5_errors(self._paths[file]):
            contents = self._file(file)
            for name, array in zip(self._names, batch.arrays, strict=True):
                values = np.empty((len(rows), *array.shape[1:]), np.float32)
                for first, end in _runs(sorted_rows):
                    start, stop = int(sorted_rows[first]), int(sorted_rows[end - 1]) + 1
                    step = (stop - 1 - start) // max(end - first - 1, 1) or 1
                    contents[name].read_direct(values, np.s_[start:stop:step], np.s_[first:end])
                array[places[order]] = values

    def _file(self, file: int) -> Any:
        """Return a file, opened; the one that has been used longest ago makes room."""
        contents = self._open.pop(file, None)
        if contents is None:
            while len(self._open) >= _NUM_OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            contents = open_hdf5(self._paths[file], rdcc_nbytes=_CHUNK_CACHE_BYTES)
        self._open[file] = contents
        return contents


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (first, end) of the runs of evenly spaced, rising `rows`: what one read can take."""
    runs, first = [], 0
    for end in range(1, len(rows) + 1):
        step = rows[first + 1] - rows[first] if end - first > 1 else 0
        if end == len(rows) or rows[end] == rows[end - 1] or (step and rows[end] - rows[end - 1] != step):
            runs.append((first, end))
            first = end
    return runs
