"""Converts MNIST's four IDX files to a train and a test LMDB.

What `dtrain convert-mnist` runs; the databases are what configs/lenet reads. Follows caffe's
convert_mnist_data.cpp: keys of eight digits, each Datum 1 x rows x columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtrain.data.datum import encode_datum
from dtrain.data.errors import DataError
from dtrain.data.idx import read_idx
from dtrain.data.lmdb_writer import Record, write_splits

_SPLIT_PREFIXES = {"train": "train", "test": "t10k"}
_KIND_NUM_AXES = {"images": 3, "labels": 1}
_NUM_CLASSES = 10


def convert_mnist(folder: str | Path, out: str | Path) -> dict[str, int]:
    """Convert the IDX files in `folder` to the LMDBs OUT/train and OUT/test, both or none.

    Arguments:
        folder: holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte; also with `.idx` for `-idx`, and each also as .gz.
    Result: the number of records of each. Raises DataError, a line for each mistake: files missing, corrupt,
    truncated or of another kind, counts or sizes that disagree, labels not in 0 … 9, an output that exists.
    """
    paths = _find_files(Path(folder))
    problems: list[str] = []
    arrays = {name: _read_or_note(path, _KIND_NUM_AXES[name[1]], problems) for name, path in paths.items()}
    _raise_any(problems)
    for split in _SPLIT_PREFIXES:
        problems += _check_split(paths[split, "images"], arrays[split, "images"], arrays[split, "labels"])
    if arrays["train", "images"].shape[1:] != arrays["test", "images"].shape[1:]:
        sizes = " and ".join(
            "x".join(map(str, arrays[split, "images"].shape[1:])) for split in _SPLIT_PREFIXES
        )
        problems.append(f"{folder}: train and test images must have one size, got {sizes}")
    _raise_any(problems)
    splits = {
        split: encode_records(arrays[split, "images"], arrays[split, "labels"]) for split in _SPLIT_PREFIXES
    }
    return write_splits(out, splits)


def encode_records(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Iterator[Record]:
    """Yield the record of each grey image of (N, H, W): its number in eight digits, and its Datum."""
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        yield b"%08d" % index, encode_datum(image[np.newaxis], label)


def _find_files(folder: Path) -> dict[tuple[str, str], Path]:
    found, missing = {}, []
    for split, prefix in _SPLIT_PREFIXES.items():
        for kind, num_axes in _KIND_NUM_AXES.items():
            names = [f"{prefix}-{kind}{mark}idx{num_axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
            paths = [folder / name for name in names if (folder / name).is_file()]
            if paths:
                found[split, kind] = paths[0]
            else:
                missing.append(f"{folder / names[0]}: file must exist, here or with .gz behind it; got none")
    _raise_any(missing)
    return found


def _read_or_note(path: Path, num_axes: int, problems: list[str]) -> NDArray[np.uint8]:
    try:
        return read_idx(path, num_axes)
    except DataError as error:
        problems.append(error.problem)
        return np.empty((0,) * num_axes, np.uint8)


def _check_split(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Iterator[str]:
    if len(images) != len(labels):
        yield f"{path}: images and labels must be as many, got {len(images)} and {len(labels)}"
    if not images.size:
        size = "x".join(map(str, images.shape))
        yield f"{path}: file must hold at least one image of at least one pixel, got {size}"
    wrong = np.flatnonzero(labels >= _NUM_CLASSES)
    if len(wrong):
        yield f"{path}: labels must be in 0 … {_NUM_CLASSES - 1}, got {labels[wrong[0]]} for image {wrong[0]}"


def _raise_any(problems: list[str]) -> None:
    if problems:
        raise DataError("\n".join(problems))
