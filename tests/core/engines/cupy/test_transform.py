"""The kernel of transforms against the host's transformer, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dtrain.core.engines.cupy.transform import ImageTransform
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.proto import caffe_pb2

SHAPE = (3, 11, 20)
NUM_IMAGES = 12
RANDOM = np.random.default_rng(1)
IMAGES = RANDOM.integers(0, 256, (NUM_IMAGES, *SHAPE), np.uint8)
MEAN_IMAGE = RANDOM.uniform(0, 255, SHAPE).astype(np.float32)
EPOCHS, INDICES = np.repeat([0, 3], NUM_IMAGES // 2), np.arange(NUM_IMAGES)

SPECS = {
    "plain": {},
    "scale": {"scale": 0.00390625},
    "one mean": {"mean_values": (117.3,), "mirror": True},
    "means": {"mean_values": (104.1, 117.2, 123.4), "scale": 0.017, "crop_size": 7, "mirror": True},
    "mean image": {"mean_file": "", "scale": 0.3, "crop_size": 8, "mirror": True},
    "mean image, whole": {"mean_file": "", "mirror": True},
}


def make_transformer(name: str, train: bool, folder: Path) -> Transformer:
    fields: dict[str, Any] = dict(SPECS[name])
    if "mean_file" in fields:
        blob = caffe_pb2.BlobProto(num=1, channels=3, height=11, width=20, data=MEAN_IMAGE.ravel().tolist())
        (folder / "mean").write_bytes(blob.SerializeToString())
        fields["mean_file"] = str(folder / "mean")
    return Transformer(TransformSpec(**fields), train, seed=5)


def transform_on_the_host(transformer: Transformer) -> Any:
    out = np.full((NUM_IMAGES, *transformer.output_shape(SHAPE)), np.nan, np.float32)
    transformer.transform_batch(IMAGES, EPOCHS, INDICES, out)
    return out


def channels_last(images: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_run_gives_the_host_s_bits_in_all_layouts(cupy: Any, name: str, train: bool, tmp_path: Path) -> None:
    transformer = make_transformer(name, train, tmp_path)
    expected = transform_on_the_host(transformer)
    transform = ImageTransform(cupy, transformer, SHAPE)
    windows = cupy.asarray(transformer.windows(SHAPE, EPOCHS, INDICES))
    for is_last, out_is_last in [(False, False), (True, False), (False, True), (True, True)]:
        images = cupy.asarray(channels_last(IMAGES) if is_last else IMAGES)
        result = channels_last(expected) if out_is_last else expected
        out = cupy.asarray(np.full(result.shape, np.nan, np.float32))
        transform.run(images, windows, out, is_last, out_is_last)
        np.testing.assert_array_equal(out.get(), result)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_run_into_fewer_bits_rounds_the_host_s_values(cupy: Any, dtype: Any, tmp_path: Path) -> None:
    transformer = make_transformer("means", True, tmp_path)
    expected = transform_on_the_host(transformer).astype(dtype)
    out = cupy.zeros(expected.shape, dtype)
    windows = cupy.asarray(transformer.windows(SHAPE, EPOCHS, INDICES))
    ImageTransform(cupy, transformer, SHAPE).run(cupy.asarray(IMAGES), windows, out)
    np.testing.assert_array_equal(out.get(), expected)


def test_run_of_more_images_than_a_grid_has_blocks_transforms_all(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dtrain.core.engines.cupy.transform.MAX_IMAGES", 5)
    transformer = make_transformer("means", True, tmp_path)
    expected = transform_on_the_host(transformer)
    out = cupy.zeros(expected.shape, np.float32)
    windows = cupy.asarray(transformer.windows(SHAPE, EPOCHS, INDICES))
    ImageTransform(cupy, transformer, SHAPE).run(cupy.asarray(IMAGES), windows, out)
    np.testing.assert_array_equal(out.get(), expected)
