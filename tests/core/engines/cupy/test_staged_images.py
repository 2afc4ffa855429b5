"""What comes to a GPU as bytes, and what can't: tops have the host's bits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.engines.cupy.transform import ImageTransform
from dtrain.data.synthetic_reader import Synthetic, SyntheticReader
from dtrain.proto import caffe_pb2
from tests.core.engines.cupy.reading_layers import (
    MIRRORED,
    NUM_BATCHES,
    RANDOM,
    TEST,
    TRAIN,
    assert_same,
    data,
    make_layer,
    needs_codecs,
    picture,
    read,
    write,
)

pytestmark = pytest.mark.usefixtures("folder")

WITH_MEAN = 'transform_param { mirror: true crop_size: 6 scale: 0.3 mean_file: "mean" }'
GRAY = "transform_param { force_gray: true mirror: true crop_size: 5 mean_value: 99.5 }"
IMAGE_DATA = 'type: "ImageData" image_data_param { source: "list" batch_size: 4'

# the layer, and whether all, some or none of its batches come as bytes
LAYERS_READ = {
    "raw": (data("raw"), "all"),
    "raw, scale": (data("raw", "transform_param { scale: 0.00390625 }"), "all"),
    "raw, one mean": (data("raw", "transform_param { mean_value: 117.3 mirror: true }"), "all"),
    "raw, means, crop": (data("raw", MIRRORED), "all"),
    "raw, mean image": (data("raw", WITH_MEAN), "all"),
    "raw, shuffled": (data("raw", MIRRORED + "dtrain_param { shuffle: true }"), "all"),
    "floats": (data("float", MIRRORED), "none"),
    "png": (data("png", WITH_MEAN), "all"),
    "png, gray": (data("png", GRAY), "all"),
    "jpeg": (data("jpeg", MIRRORED + "dtrain_param { decode_threads: 2 }"), "all"),
    "jpeg of one channel": (data("gray", "transform_param { crop_size: 5 mirror: true }"), "all"),
    "jpeg of one channel, color": (data("gray", MIRRORED.replace("{", "{ force_color: true")), "all"),
    "sizes, cropped": (data("sizes", MIRRORED), "none"),
    "sizes, one by one": (data("sizes", "transform_param { mirror: true scale: 0.5 }", 1), "all"),
    "mixed": (data("mixed", MIRRORED), "some"),
    "images, resized": (IMAGE_DATA + f" new_height: 8 new_width: 9 shuffle: true }} {MIRRORED}", "all"),
    "images, resized, gray": (IMAGE_DATA + f" new_height: 8 new_width: 9 is_color: false }} {GRAY}", "all"),
    "images of sizes": (IMAGE_DATA + f" }} {MIRRORED}", "none"),
}


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize(
    "name",
    [
        name if name.startswith(("raw", "floats")) else pytest.param(name, marks=needs_codecs)
        for name in LAYERS_READ
    ],
)
def test_tops_on_the_device_have_the_host_s_bits(
    monkeypatch: pytest.MonkeyPatch, name: str, phase: int
) -> None:
    transformed = []
    run = ImageTransform.run
    monkeypatch.setattr(
        ImageTransform, "run", lambda *args, **kwargs: (transformed.append(1), run(*args, **kwargs))
    )
    text, share = LAYERS_READ[name]
    batches = []
    for engine in ("reference", "cupy"):
        layer = make_layer(text, engine, phase)
        batches.append(read(layer))
        layer.close()
    assert_same(batches[1], batches[0])
    assert {0: "none", NUM_BATCHES: "all"}.get(len(transformed), "some") == share


def test_made_up_records_on_the_device_have_the_host_s_bits() -> None:
    batches = []
    for engine in ("reference", "cupy"):
        layer = make_layer(data("raw", MIRRORED), engine, synthetic=Synthetic())
        assert isinstance(layer.made_up, SyntheticReader)
        batches.append(read(layer))
        layer.close()
    assert_same(batches[1], batches[0])


@needs_codecs
def test_damaged_rows_below_the_window_are_not_looked_at_as_on_the_host(folder: Path) -> None:
    (raw_image,) = RANDOM.integers(0, 256, (1, 3, 64, 64), np.uint8)
    file = io.BytesIO()
    picture(raw_image).save(file, "JPEG", restart_marker_rows=1)
    whole = file.getvalue()
    datum = caffe_pb2.Datum(data=whole[: len(whole) * 3 // 4] + b"\xff\xd9", encoded=True, label=1)
    write(folder / "cut", [datum.SerializeToString()])
    results = []
    for engine in ("reference", "cupy"):
        layer = make_layer(data("cut", "transform_param { crop_size: 8 }", 1), engine, TEST)
        results.append(read(layer, 1))
        layer.close()
    assert_same(results[1], results[0])
