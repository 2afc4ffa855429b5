"""Tests of data/convert_mnist.py."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.convert_mnist import convert_mnist, encode_records
from dtrain.data.errors import DataError
from dtrain.proto import caffe_pb2

NUM_IMAGES = {"train": 12, "t10k": 5}
PIXELS = {
    prefix: np.random.default_rng(size).integers(0, 256, (size, 4, 3), np.uint8)
    for prefix, size in NUM_IMAGES.items()
}
LABELS = {prefix: (np.arange(size) % 10).astype(np.uint8) for prefix, size in NUM_IMAGES.items()}


def idx(values: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small MNIST of 4x3 pixels."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for prefix in NUM_IMAGES:
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(PIXELS[prefix]))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(LABELS[prefix]))
    return folder


def check_database(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        records = list(transaction.cursor())
    assert [key for key, _ in records] == [b"%08d" % index for index in range(len(images))]
    for (_, value), image, label in zip(records, images, labels, strict=True):
        datum = caffe_pb2.Datum.FromString(value)
        assert (datum.channels, datum.height, datum.width) == (1, *image.shape)
        assert (datum.data, datum.label) == (image.tobytes(), label)


def complaints(folder: Path, out: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        convert_mnist(folder, out)
    assert not out.exists()
    return [line.removeprefix(f"{folder}/") for line in caught.value.problem.splitlines()]


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("is_gzip", [False, True])
def test_convert_mnist_of_each_spelling_writes_both_databases(
    folder: Path, tmp_path: Path, mark: str, is_gzip: bool
) -> None:
    for path in list(folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        name = path.name.replace("-idx", f"{mark}idx") + (".gz" if is_gzip else "")
        (folder / name).write_bytes(gzip.compress(content) if is_gzip else content)
    assert convert_mnist(folder, tmp_path / "out") == {"train": 12, "test": 5}
    check_database(tmp_path / "out" / "train", PIXELS["train"], LABELS["train"])
    check_database(tmp_path / "out" / "test", PIXELS["t10k"], LABELS["t10k"])


def test_convert_mnist_with_missing_files_names_them_all(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    found = complaints(tmp_path / "mnist", tmp_path / "out")
    names = [f"{prefix}-{kind}-ubyte" for prefix in NUM_IMAGES for kind in ("images-idx3", "labels-idx1")]
    assert found == [f"{name}: file must exist, here or with .gz behind it; got none" for name in names]


def test_convert_mnist_with_several_broken_files_names_them_all(folder: Path, tmp_path: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(idx(PIXELS["train"])[:-2])
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(PIXELS["t10k"]))
    assert complaints(folder, tmp_path / "out") == [
        "train-images-idx3-ubyte: 12x4x3 values must take 160 bytes, got 158",
        "t10k-labels-idx1-ubyte: magic must be 0x00000801, got 0x00000803",
    ]


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [
        (
            "train-labels-idx1",
            LABELS["train"][:-1],
            "train-images-idx3-ubyte: images and labels must be as many, got 12 and 11",
        ),
        (
            "train-labels-idx1",
            np.where(np.arange(12) == 7, 10, LABELS["train"]).astype(np.uint8),
            "train-images-idx3-ubyte: labels must be in 0 … 9, got 10 for image 7",
        ),
        (
            "t10k-images-idx3",
            PIXELS["t10k"][:, :, :2],
            "train and test images must have one size, got 4x3 and 4x2",
        ),
        (
            "t10k-images-idx3",
            PIXELS["t10k"][:, :0],
            "file must hold at least one image of at least one pixel, got 5x0x3",
        ),
    ],
)
def test_convert_mnist_of_values_that_disagree_says_so(
    folder: Path, tmp_path: Path, name: str, values: NDArray[np.uint8], complaint: str
) -> None:
    (folder / f"{name}-ubyte").write_bytes(idx(values))
    assert complaint in "\n".join(complaints(folder, tmp_path / "out"))


def test_convert_mnist_to_an_existing_database_keeps_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "test").mkdir(parents=True)
    with pytest.raises(DataError, match="out/test: must not exist yet, got a folder"):
        convert_mnist(folder, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["test"]


def test_encode_records_of_images_counts_them_in_eight_digits() -> None:
    records = dict(encode_records(PIXELS["t10k"], LABELS["t10k"]))
    assert list(records) == [b"00000000", b"00000001", b"00000002", b"00000003", b"00000004"]
