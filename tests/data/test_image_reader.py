"""Tests of data/image_reader.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dtrain.data.batch import Batch
from dtrain.data.errors import DataError
from dtrain.data.image_list import ImageList
from dtrain.data.image_reader import ImageReader, ImageSpec
from dtrain.data.image_resize import resize_bilinear
from dtrain.data.loader import Loader
from dtrain.data.picture import Colors
from dtrain.data.sampler import Sampler, Shard
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.data.workers import Workers

NUM_IMAGES = 10
# Blue, green, red: as the reader gives them.
IMAGES = np.random.default_rng(4).integers(0, 256, (NUM_IMAGES, 6, 7, 3), np.uint8)
MakeReader = Callable[..., ImageReader]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of 6x7 pixels, "img 0.png" …, in list.txt with the labels 0, 3, 6 …"""
    for index, image in enumerate(IMAGES):
        Image.fromarray(image[..., ::-1]).save(tmp_path / f"img {index}.png")
    (tmp_path / "list.txt").write_text(
        "".join(f"img {index}.png {3 * index}\n" for index in range(NUM_IMAGES))
    )
    return tmp_path


@pytest.fixture
def make_reader(folder: Path) -> MakeReader:
    """Return a function that makes a reader of the ten images."""

    def make(
        shuffle: bool = False, seed: int = 1, transform: TransformSpec | None = None, **spec: object
    ) -> ImageReader:
        images = ImageList(str(folder / "list.txt"))
        return ImageReader(
            images,
            ImageSpec(f"{folder}/", **spec),  # type: ignore[arg-type]
            Sampler(len(images), seed, shuffle),
            Transformer(transform or TransformSpec(), train=True, seed=seed),
            Workers(2),
        )

    return make


def read(reader: ImageReader, positions: list[int]) -> Batch:
    batch = Batch(len(positions), reader.shapes)
    reader.read(np.array(positions), batch)
    return batch


def test_read_returns_images_and_labels_at_any_positions(make_reader: MakeReader) -> None:
    reader = make_reader()
    assert (reader.num_records, reader.shapes) == (10, ((3, 6, 7), ()))
    batch = read(reader, [0, 9, 10, 23])
    assert np.array_equal(batch.data, IMAGES[[0, 9, 0, 3]].transpose(0, 3, 1, 2))
    assert batch.labels.tolist() == [0, 27, 0, 9]
    assert batch.epochs.tolist() == [0, 0, 1, 2]
    reader.close()


def test_read_in_grey_or_another_size_converts(make_reader: MakeReader) -> None:
    gray = make_reader(colors=Colors.GRAY)
    assert gray.shapes[0] == (1, 6, 7)
    weighed = (IMAGES @ np.array([3736, 19235, 9797])) >> 15  # libpng's weights of blue, green, red
    assert np.array_equal(read(gray, [0, 1]).data[:, 0], weighed[:2])
    resized = make_reader(size=(9, 5))
    assert resized.shapes[0] == (3, 9, 5)
    expected = resize_bilinear(IMAGES[4], 9, 5).transpose(2, 0, 1)
    assert np.array_equal(read(resized, [4]).data[0], expected)
    for reader in (gray, resized):
        reader.close()


@pytest.mark.parametrize("max_skip", [0, 1, 6, 10])
def test_max_skip_begins_at_a_record_below_it_that_depends_on_the_seed(
    make_reader: MakeReader, max_skip: int
) -> None:
    firsts = set()
    for seed in range(40):
        reader = make_reader(seed=seed, max_skip=max_skip)
        indices = read(reader, list(range(12))).indices.tolist()
        firsts.add(indices[0])
        assert indices == [(indices[0] + i) % NUM_IMAGES for i in range(12)]
        reader.reseed(seed + 1)
        again = make_reader(seed=seed + 1, max_skip=max_skip)
        assert read(reader, [0]).indices == read(again, [0]).indices
        reader.close()
    assert firsts == set(range(max(max_skip, 1)))


def test_max_skip_beyond_the_list_is_refused(make_reader: MakeReader, folder: Path) -> None:
    with pytest.raises(
        DataError, match="list.txt: rand_skip must be at most 10, the number of lines, got 11"
    ):
        make_reader(max_skip=11)


def test_shuffle_gives_each_epoch_an_order_of_its_own(make_reader: MakeReader) -> None:
    reader = make_reader(shuffle=True)
    epochs = [read(reader, list(range(10 * epoch, 10 * epoch + 10))).indices.tolist() for epoch in range(4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    reader.reseed(2)
    other = make_reader(shuffle=True, seed=2)
    assert read(reader, [0, 1, 2, 3]).indices.tolist() == read(other, [0, 1, 2, 3]).indices.tolist()
    for each in (reader, other):
        each.close()


def stream(loader: Loader, num_batches: int) -> NDArray[np.float32]:
    """Return images and labels of the next batches, a row for each record."""
    rows = []
    for _ in range(num_batches):
        batch = loader.next()
        rows.append(np.column_stack([batch.data.reshape(len(batch.labels), -1), batch.labels]))
    return np.concatenate(rows)


RANDOM = TransformSpec(mirror=True, crop_size=4)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_read_what_one_reads(make_reader: MakeReader, world_size: int) -> None:
    def read_share(shard: Shard, batch_size: int) -> NDArray[np.float32]:
        reader = make_reader(shuffle=True, transform=RANDOM, max_skip=5)
        loader = Loader(reader, batch_size, shard)
        loader.start(7)
        rows = stream(loader, 4)
        loader.close()
        return rows

    alone = read_share(Shard(), 3 * world_size)
    for rank in range(world_size):
        assert np.array_equal(read_share(Shard(rank, world_size), 3), alone[rank::world_size])


def test_resumed_loader_reads_on_bit_for_bit(make_reader: MakeReader) -> None:
    through, resumed = (
        Loader(make_reader(shuffle=True, transform=RANDOM, max_skip=5), 3, Shard()) for _ in "ab"
    )
    through.start()
    resumed.start(4 * 3)
    assert np.array_equal(stream(through, 9)[4 * 3 :], stream(resumed, 5))
    for loader in (through, resumed):
        loader.close()


def test_read_of_images_of_several_sizes_fits_the_batch_to_each(
    make_reader: MakeReader, folder: Path
) -> None:
    Image.fromarray(IMAGES[1][:4]).save(folder / "img 1.png")
    reader = make_reader()
    assert reader.shapes[0] == (3, 6, 7)
    batch = Batch(1, reader.shapes)
    for index, shape in enumerate([(1, 3, 6, 7), (1, 3, 4, 7), (1, 3, 6, 7)]):
        reader.read(np.array([index]), batch)
        assert batch.data.shape == shape
    with pytest.raises(DataError) as caught:
        read(reader, [0, 1])
    lines = folder / "list.txt"
    assert caught.value.problem.startswith(
        f"{lines}:2: size must be 3x6x7 like that of {lines}:1 in the same batch, got 3x4x7"
    )
    reader.close()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "image must be readable, got: No such file or directory"),
        (b"text", "image must be a JPEG, PNG, .* got other bytes"),
    ],
)
def test_read_of_an_image_that_can_not_be_read_names_line_and_file(
    make_reader: MakeReader, folder: Path, content: bytes | None, problem: str
) -> None:
    reader = make_reader()
    (folder / "img 3.png").unlink()
    if content is not None:
        (folder / "img 3.png").write_bytes(content)
    with pytest.raises(DataError, match=f"^{folder}/list.txt:4: {folder}/img 3.png: {problem}$"):
        read(reader, [2, 3])
    reader.close()


def test_reader_whose_first_image_does_not_fit_names_it(make_reader: MakeReader, folder: Path) -> None:
    with pytest.raises(DataError, match=r"list.txt:1: transform_param: crop_size must fit .* 3x6x7, got 7"):
        make_reader(transform=TransformSpec(crop_size=7))


def test_name_record_names_image_and_line(make_reader: MakeReader, folder: Path) -> None:
    reader = make_reader()
    assert reader.name_record(2) == f'image "img 2.png" of {folder}/list.txt:3'
    reader.close()
