"""Tests of data/window_reader.py; pixels against what OpenCV makes of the windows (recorded/record_opencv.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dtrain.data.batch import Batch
from dtrain.data.errors import DataError
from dtrain.data.loader import Loader
from dtrain.data.sampler import Shard
from dtrain.data.transformer import TransformSpec
from dtrain.data.window_crop import CropRule
from dtrain.data.window_file import WindowFile
from dtrain.data.window_reader import WindowReader, WindowSpec
from dtrain.data.workers import Workers
from dtrain.proto import caffe_pb2

with np.load(Path(__file__).parent / "recorded/opencv.npz") as file:
    RECORDED = dict(file)
BOXES = RECORDED["window_boxes"].tolist()
CROP_SIZE = 9
MakeReader = Callable[..., WindowReader]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two copies of one image, whose windows are all foreground of classes 1 … 7 and all background."""
    lines = []
    for number in range(2):
        Image.fromarray(RECORDED["window_image"][..., ::-1]).save(tmp_path / f"{number}.png")
        lines += [f"# {number}", f"{number}.png", "3", "16", "20", str(len(BOXES))]
        for label, box in enumerate(BOXES, 1):
            lines.append(f"{label} {1 - number} " + " ".join(map(str, box)))
    (tmp_path / "windows.txt").write_text("\n".join(lines))
    mean = RECORDED["window_mean"]
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=14, width=12, data=mean.ravel().tolist())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    return tmp_path


@pytest.fixture
def make_reader(folder: Path) -> MakeReader:
    """Return a function that makes a reader of the windows."""

    def make(
        rule: CropRule | None = None, transform: TransformSpec | None = None, seed: int = 1, **spec: object
    ) -> WindowReader:
        return WindowReader(
            WindowFile(str(folder / "windows.txt")),
            WindowSpec(f"{folder}/", **spec),  # type: ignore[arg-type]
            rule or CropRule(CROP_SIZE),
            transform or TransformSpec(crop_size=CROP_SIZE),
            Workers(2),
            seed,
        )

    return make


def read(reader: WindowReader, first: int = 0, num_positions: int = 200) -> Batch:
    batch = Batch(num_positions, reader.shapes)
    batch.data[...] = np.nan
    reader.read(np.arange(first, first + num_positions), batch)
    return batch


def which_flips(squares: NDArray[np.float32], numbers: list[int], kind: str) -> list[bool]:
    """Check that each square is the recorded window, plain or flipped, and return which are flipped."""
    plain, flipped = (RECORDED[f"{kind}_{word}"] for word in ("plain", "flipped"))
    flips = []
    for square, number in zip(squares, numbers, strict=True):
        box = number % len(BOXES)
        flips.append(not np.allclose(square, plain[box], atol=1e-4))
        np.testing.assert_allclose(square, (flipped if flips[-1] else plain)[box], atol=1e-4)
    return flips


@pytest.mark.parametrize("cache_images", [False, True])
@pytest.mark.parametrize(("mode", "context"), [("warp", 0), ("warp", 2), ("square", 0), ("square", 3)])
def test_read_cuts_windows_as_opencv_does(
    make_reader: MakeReader, mode: str, context: int, cache_images: bool
) -> None:
    reader = make_reader(
        CropRule(CROP_SIZE, context, mode == "square"),
        TransformSpec(mirror=True, crop_size=CROP_SIZE),
        fg_fraction=0.5,
        cache_images=cache_images,
    )
    assert reader.shapes == ((3, CROP_SIZE, CROP_SIZE), ())
    batch = read(reader)
    flips = which_flips(batch.data, batch.indices.tolist(), f"window_{mode}_{context}")
    assert set(batch.indices.tolist()) == set(range(14))
    assert 60 < sum(flips) < 140  # six standard deviations
    reader.close()


def test_read_takes_the_mean_file_s_centre_off_where_there_is_image(
    make_reader: MakeReader, folder: Path
) -> None:
    transform = TransformSpec(
        0.5, mirror=True, crop_size=CROP_SIZE, mean_file=str(folder / "mean.binaryproto")
    )
    reader = make_reader(CropRule(CROP_SIZE, 3, is_square=True), transform)
    batch = read(reader)
    which_flips(batch.data, batch.indices.tolist(), "mean_square_3")
    reader.close()


@pytest.mark.parametrize("values", [(10.0,), (10.0, 20.0, 30.0)])
def test_read_takes_mean_values_off(make_reader: MakeReader, values: tuple[float, ...]) -> None:
    plain = make_reader()
    reader = make_reader(transform=TransformSpec(2.0, crop_size=CROP_SIZE, mean_values=values))
    means = np.array(values * (3 // len(values)), np.float32).reshape(3, 1, 1)
    assert np.array_equal(read(reader).data, 2 * (read(plain).data - means))
    for each in (plain, reader):
        each.close()


@pytest.mark.parametrize(
    ("fg_fraction", "num_positions", "num_foreground"),
    [(0.25, 200, 50), (0.25, 7, 1), (0.25, 3, 0), (1.0, 5, 5), (0.0, 5, 0), (0.1, 30, 3), (0.3, 10, 3)],
)
def test_read_puts_background_first_and_rounds_foreground_down(
    make_reader: MakeReader, fg_fraction: float, num_positions: int, num_foreground: int
) -> None:
    reader = make_reader(fg_fraction=fg_fraction)
    batch = read(reader, num_positions=num_positions)
    num_background = num_positions - num_foreground
    assert reader.count_foreground(num_positions) == num_foreground
    assert not batch.labels[:num_background].any()
    assert np.array_equal(batch.labels[num_background:], batch.indices[num_background:] + 1)
    assert (batch.indices[:num_background] >= len(BOXES)).all()
    reader.close()


def test_read_draws_each_window_about_as_often(make_reader: MakeReader) -> None:
    reader = make_reader(fg_fraction=0.5)
    drawn = np.concatenate([read(reader, 100 * k, 100).indices for k in range(14)])
    counts = np.bincount(drawn, minlength=14)
    assert counts.sum() == 1400
    assert (abs(counts - 100) < 6 * 9.3).all()  # of 700 draws of 7: six standard deviations
    reader.close()


def rows(
    reader: WindowReader, batch_size: int, shard: Shard, first: int, num_batches: int
) -> NDArray[np.float32]:
    loader = Loader(reader, batch_size, shard)
    loader.start(first)
    found = []
    for _ in range(num_batches):
        batch = loader.next()
        found.append(np.column_stack([batch.data.reshape(batch_size, -1), batch.labels]))
    loader.close()
    return np.concatenate(found)


MIRRORING = TransformSpec(mirror=True, crop_size=CROP_SIZE)


def test_ranks_together_read_what_one_reads_where_the_foreground_is_whole(make_reader: MakeReader) -> None:
    alone = rows(make_reader(transform=MIRRORING), 12, Shard(), 24, 4)
    for rank in range(3):
        share = rows(make_reader(transform=MIRRORING), 4, Shard(rank, 3), 24, 4)
        assert np.array_equal(share, alone[rank::3])


def test_ranks_round_their_own_foreground_down(make_reader: MakeReader) -> None:
    reader = make_reader()
    shares = [rows(make_reader(), 6, Shard(rank, 2), 0, 1) for rank in range(2)]
    assert [np.count_nonzero(share[:, -1]) for share in shares] == [1, 1]
    assert reader.count_foreground(12) == 3  # one rank alone would have these
    reader.close()


def test_resumed_loader_reads_on_bit_for_bit(make_reader: MakeReader) -> None:
    through = rows(make_reader(transform=MIRRORING), 6, Shard(), 0, 9)
    assert np.array_equal(rows(make_reader(transform=MIRRORING), 6, Shard(), 24, 5), through[24:])


def test_reseed_draws_other_windows(make_reader: MakeReader) -> None:
    reader, other = make_reader(), make_reader(seed=2)
    first, second = read(reader).indices, read(other).indices
    assert not np.array_equal(first, second)
    reader.reseed(2)
    assert np.array_equal(read(reader).indices, second)
    for each in (reader, other):
        each.close()


def test_epochs_count_as_many_windows_as_there_are(make_reader: MakeReader, folder: Path) -> None:
    reader = make_reader()
    assert reader.num_records == 14
    assert read(reader, 10, 6).epochs.tolist() == [0, 0, 0, 0, 1, 1]
    assert reader.name_record(9) == f'window of "1.png" at {folder}/windows.txt:22'
    reader.close()


def test_read_of_a_window_that_can_not_be_cut_names_line_and_image(
    make_reader: MakeReader, folder: Path
) -> None:
    text = (folder / "windows.txt").read_text().replace("7 1 12 0 13 15", "7 1 12 0 20 15")
    (folder / "windows.txt").write_text(text)
    reader = make_reader(fg_fraction=1)
    with pytest.raises(DataError) as caught:
        read(reader)
    assert caught.value.problem == (
        f"{folder}/windows.txt:13: {folder}/0.png: window must lie in its image of 20x16, got x1 12 y1 0 x2 20 y2 15"
    )
    (folder / "0.png").unlink()
    with pytest.raises(DataError, match=rf"windows.txt:\d+: {folder}/0.png: image must be readable"):
        read(reader)
    reader.close()


def test_read_of_a_damaged_image_logs_its_flaw(
    make_reader: MakeReader, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jpeg = RECORDED["file_full.jpg"].tobytes()
    (folder / "0.png").write_bytes(jpeg[:-2] + b"surplus" + jpeg[-2:])  # 14x11 pixels, whatever its name
    text = "# 0\n0.png\n3\n11\n14\n1\n1 0.9 2 2 13 10\n"
    (folder / "windows.txt").write_text(text)
    reader = make_reader(fg_fraction=1)
    with caplog.at_level(logging.WARNING):
        read(reader, num_positions=1)
    assert [message.partition(": JPEG is damaged")[0] for message in caplog.messages] == [f"{folder}/0.png"]
    reader.close()


def test_reader_that_keeps_images_needs_them_at_once(make_reader: MakeReader, folder: Path) -> None:
    (folder / "1.png").unlink()
    make_reader().close()
    with pytest.raises(DataError, match="1.png: image must be readable, got: No such file"):
        make_reader(cache_images=True)


def test_count_foreground_without_windows_of_a_kind_says_so(make_reader: MakeReader, folder: Path) -> None:
    text = (folder / "windows.txt").read_text()
    (folder / "windows.txt").write_text(text[: text.index("# 1")])
    reader = make_reader()
    with pytest.raises(
        DataError, match="windows.txt: must have background windows, 3 for each batch, got none"
    ):
        reader.count_foreground(4)
    all_foreground = make_reader(fg_fraction=1)
    assert all_foreground.count_foreground(4) == 4
    for each in (reader, all_foreground):
        each.close()


@pytest.mark.parametrize(("crop_size", "values"), [(13, ()), (9, (1.0, 2.0))])
def test_reader_whose_mean_does_not_fit_says_so(
    make_reader: MakeReader, folder: Path, crop_size: int, values: tuple[float, ...]
) -> None:
    path = "" if values else str(folder / "mean.binaryproto")
    transform = TransformSpec(crop_size=crop_size, mean_file=path, mean_values=values)
    problem = (
        "mean_value must be given once or for each" if values else "mean image must be of 3 channels and hold"
    )
    with pytest.raises(DataError, match=problem):
        make_reader(CropRule(crop_size), transform)
