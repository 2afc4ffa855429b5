"""Tests of what data/batch_reader.py asks of every reader: N ranks read, batch by batch, what one rank reads."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dtrain.data.batch_reader import BatchReader
from dtrain.data.datum_reader import DatumReader
from dtrain.data.epoch_order import Blocks
from dtrain.data.hdf5_reader import Hdf5Reader
from dtrain.data.image_list import ImageList
from dtrain.data.image_reader import ImageReader, ImageSpec
from dtrain.data.leveldb_source import LeveldbSource
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.loader import Loader
from dtrain.data.record_source import RecordSource
from dtrain.data.sampler import Sampler, Shard
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.data.window_crop import CropRule
from dtrain.data.window_file import WindowFile
from dtrain.data.window_reader import WindowReader, WindowSpec

NUM_RECORDS = 31  # divisible by no batch
GLOBAL_BATCH_SIZE = 24
SIZE = 4
SPEC = TransformSpec(mirror=True)
ORDERS = {
    "in file order": lambda: Sampler(NUM_RECORDS),
    "shuffled": lambda: Sampler(NUM_RECORDS, 7, shuffle=True),
    "shuffled in blocks": lambda: Sampler(
        NUM_RECORDS, 7, shuffle=True, blocks=Blocks.of_size(4, NUM_RECORDS, 3)
    ),
}
MakeReader = Callable[[], BatchReader]
Read = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # epochs, indices, images


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    """31 images of 3x4x4."""
    return np.random.default_rng(3).integers(0, 256, (NUM_RECORDS, 3, SIZE, SIZE), np.uint8)


@pytest.fixture
def image_list(tmp_path: Path, pixels: NDArray[np.uint8]) -> str:
    """A list of the images, each in a file."""
    lines = []
    for index, image in enumerate(pixels):
        data = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(data, "PNG")
        (tmp_path / f"{index}.png").write_bytes(data.getvalue())
        lines.append(f"{tmp_path / str(index)}.png {index}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return str(tmp_path / "list.txt")


def expect_ranks_read_what_one_reads(make_reader: MakeReader) -> Read:
    """Assert that 1, 2, 3 and 4 ranks read the same in each iteration; return what they read of five epochs."""
    num_iterations = -(-5 * NUM_RECORDS // GLOBAL_BATCH_SIZE)
    alone = read_on(make_reader, 1, num_iterations)
    for world_size in (2, 3, 4):
        for mine, theirs in zip(read_on(make_reader, world_size, num_iterations), alone, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    return alone


def read_on(make_reader: MakeReader, world_size: int, num_iterations: int) -> Read:
    """Return what all ranks read, in the order of the common stream."""
    batch_size = GLOBAL_BATCH_SIZE // world_size
    of_ranks: list[list[Read]] = []
    for rank in range(world_size):
        with closing(Loader(make_reader(), batch_size, Shard(rank, world_size))) as loader:
            loader.start()
            rows: list[Read] = []
            for _ in range(num_iterations):
                batch = loader.next()
                rows.append((batch.epochs.copy(), batch.indices.copy(), batch.data.copy()))
            of_ranks.append(rows)
    joined = []
    for part in range(3):
        # (iteration, item, rank, …): item k of rank r is record k·N + r of the iteration
        dealt = np.stack([np.stack([row[part] for row in rows]) for rows in of_ranks], axis=2)
        joined.append(dealt.reshape(-1, *dealt.shape[3:]))
    return joined[0], joined[1], joined[2]


def expect_each_record_once_an_epoch(read: Read) -> None:
    epochs, indices, _ = read
    for epoch in range(5):
        assert sorted(indices[epochs == epoch].tolist()) == list(range(NUM_RECORDS))
    assert (np.diff(epochs) >= 0).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [LmdbSource, LeveldbSource])
def test_datum_reader_on_any_number_of_ranks_reads_each_record_once_an_epoch(
    order: str,
    kind: Callable[[str], RecordSource],
    make_lmdb: Callable[..., str],
    make_leveldb: Callable[..., str],
    make_datum: Callable[..., bytes],
    pixels: NDArray[np.uint8],
) -> None:
    make = make_lmdb if kind is LmdbSource else make_leveldb
    path = make([make_datum(image, label) for label, image in enumerate(pixels)])
    read = expect_ranks_read_what_one_reads(
        lambda: DatumReader(kind(path), ORDERS[order](), Transformer(SPEC, train=True, seed=7))
    )
    expect_each_record_once_an_epoch(read)


@pytest.mark.parametrize("max_skip", [0, 9])
@pytest.mark.parametrize("order", ORDERS)
def test_image_reader_on_any_number_of_ranks_reads_each_record_once_an_epoch(
    order: str, max_skip: int, image_list: str
) -> None:
    read = expect_ranks_read_what_one_reads(
        lambda: ImageReader(
            ImageList(image_list),
            ImageSpec(max_skip=max_skip),
            ORDERS[order](),
            Transformer(SPEC, train=True, seed=7),
        )
    )
    if not max_skip:
        expect_each_record_once_an_epoch(read)


@pytest.mark.parametrize("shuffle", [False, True])
def test_hdf5_reader_on_any_number_of_ranks_reads_each_record_once_an_epoch(
    shuffle: bool, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    paths = [str(tmp_path / f"{file}.h5") for file in range(4)]
    bounds = [0, 13, 13, 14, NUM_RECORDS]  # one file has no rows
    for path, first, end in zip(paths, bounds, bounds[1:], strict=False):
        with h5py.File(path, "w") as contents:
            contents["data"] = pixels[first:end]
    read = expect_ranks_read_what_one_reads(lambda: Hdf5Reader(paths, ["data"], shuffle, 7))
    expect_each_record_once_an_epoch(read)
    np.testing.assert_array_equal(read[2], pixels[read[1]])


def test_window_reader_on_any_number_of_ranks_draws_the_same_windows(image_list: str, tmp_path: Path) -> None:
    lines = []
    for index in range(NUM_RECORDS):
        overlap = 0.9 if index % 2 else 0.1
        image = f"# {index}\n{tmp_path / str(index)}.png\n3\n{SIZE}\n{SIZE}\n1\n"
        lines.append(f"{image}{index % 2} {overlap} 0 0 {index % 3 + 1} 3\n")
    (tmp_path / "windows.txt").write_text("".join(lines))
    spec = WindowSpec(fg_fraction=0.5)  # a whole number of each rank's batch
    read = expect_ranks_read_what_one_reads(
        lambda: WindowReader(
            WindowFile(str(tmp_path / "windows.txt"), 0.5, 0.5), spec, CropRule(SIZE), SPEC, seed=7
        )
    )
    assert len(set(read[1].tolist())) > NUM_RECORDS // 2
