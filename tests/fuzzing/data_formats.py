"""Files of data: records, images, means and rows of HDF5."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from dtrain.data.batch import Batch
from dtrain.data.blob_file import read_blob_file
from dtrain.data.datum import encode_datum, parse_datum
from dtrain.data.hdf5_reader import Hdf5Reader
from dtrain.data.idx import read_idx
from dtrain.data.image_codec import open_image
from dtrain.data.mean_file import read_mean_file
from dtrain.data.picture import Colors
from dtrain.proto import caffe_pb2
from tests.fuzzing import prototxts
from tests.fuzzing.format import Format, look_at

IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def make_datums(folder: Path) -> list[bytes]:
    """Return records of bytes, of floats, and encoded."""
    floats = caffe_pb2.Datum(channels=2, height=1, width=3, float_data=[0.5] * 6, label=-1)
    encoded = caffe_pb2.Datum(data=b"\xff\xd8\xff\xe0", encoded=True, label=7)
    return [encode_datum(IMAGE, 3), floats.SerializeToString(), encoded.SerializeToString()]


def read_datum(path: Path) -> None:
    """Read the file as one record."""
    datum = parse_datum(path.read_bytes())
    if not datum.encoded:
        look_at(datum.image())


def make_blobs(folder: Path) -> list[bytes]:
    """Return blobs with the shape in either form, of floats and of doubles."""
    old = caffe_pb2.BlobProto(num=1, channels=2, height=2, width=3, data=[0.5] * 12)
    new = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[2, 2, 3]), double_data=[0.25] * 12)
    return [old.SerializeToString(), new.SerializeToString()]


def make_idx(folder: Path) -> list[bytes]:
    """Return an IDX file of images, plain and compressed."""
    plain = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + IMAGE.tobytes()
    return [plain, prototxts.compressed(plain)]


def make_hdf5(folder: Path) -> list[bytes]:
    """Return a file of rows, one dataset plain and one in compressed chunks."""
    import h5py

    path = folder / "made.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
        file.create_dataset("label", data=np.arange(4, dtype=np.int64), chunks=(2,), compression="gzip")
    return [path.read_bytes()]


def read_hdf5(path: Path) -> None:
    """Read an epoch of rows and a half."""
    reader = Hdf5Reader([str(path)], ["data", "label"], shuffle=True, seed=1)
    try:
        batch = Batch(6, reader.shapes)
        reader.read(np.arange(6), batch)
    finally:
        reader.close()


def image_maker(**modes_of_kinds: str) -> Callable[[Path], list[bytes]]:
    """Return the function that makes images of each kind, one in each of its modes."""

    def make(folder: Path) -> list[bytes]:
        from PIL import Image

        pixels = np.random.default_rng(1).integers(0, 256, (9, 11, 3), np.uint8)
        images = []
        for kind, modes in modes_of_kinds.items():
            for mode in modes.split():
                file = BytesIO()
                Image.fromarray(pixels).convert(mode).save(file, kind)
                images.append(file.getvalue())
        return images

    return make


def read_image(path: Path) -> None:
    """Decode an image, in colour, grey or as stored by turns, in full or in part."""
    content = path.read_bytes()
    picture = open_image(content, list(Colors)[len(content) % len(Colors)])
    look_at(picture.pixels(3 if len(content) % 2 else None))


IMAGE_PACKAGES = ("PIL", "simplejpeg")
make_jpegs = image_maker(JPEG="RGB L CMYK")
make_images = image_maker(
    PNG="RGB RGBA P L 1", BMP="RGB P", TIFF="RGB L", WEBP="RGB", PPM="RGB L", JPEG2000="RGB L"
)

DATA_FORMATS = (
    Format("datum", "record", make_datums, read_datum, names_its_file=False),
    Format("mean", "mean.binaryproto", make_blobs, lambda path: look_at(read_mean_file(str(path)))),
    Format("blob", "blob.binaryproto", make_blobs, lambda path: look_at(read_blob_file(str(path), "source"))),
    Format("idx", "images-idx3-ubyte", make_idx, lambda path: look_at(read_idx(path, 3))),
    Format("hdf5", "rows.h5", make_hdf5, read_hdf5, needs=("h5py",)),
    Format("jpeg", "image.jpg", make_jpegs, read_image, needs=IMAGE_PACKAGES, names_its_file=False),
    Format("images", "image", make_images, read_image, needs=IMAGE_PACKAGES, names_its_file=False),
)
