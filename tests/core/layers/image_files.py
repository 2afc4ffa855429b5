"""Images, an image list and a window file on the disk, for the tests of the layers that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import TRAIN, Rig, make_rig

NUM_IMAGES, HEIGHT, WIDTH = 6, 7, 8
# (N, C, H, W), blue first.
IMAGES = np.random.default_rng(6).integers(0, 256, (NUM_IMAGES, 3, HEIGHT, WIDTH), np.uint8)


def write_images(folder: Path) -> None:
    """Write images into img/, list.txt and windows.txt that name them, and a mean of 10, mean.binaryproto."""
    (folder / "img").mkdir()
    windows = []
    for number, image in enumerate(IMAGES):
        Image.fromarray(image[::-1].transpose(1, 2, 0)).save(folder / f"img/{number}.png")
        windows += [f"# {number}", f"{number}.png", "3", "7", "8", "2", "3 0.9 0 0 3 3", "0 0.1 4 3 7 6"]
    (folder / "list.txt").write_text("".join(f"{number}.png {number * 2}\n" for number in range(NUM_IMAGES)))
    (folder / "windows.txt").write_text("\n".join(windows))
    mean = caffe_pb2.BlobProto(num=1, channels=3, height=7, width=8, data=[10.0] * 168)
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())


def make(layer: str, phase: int = TRAIN) -> Rig:
    return make_rig(layer, [], num_tops=2, phase=phase, dtype=np.float32)


def read(rig: Rig, num_batches: int) -> tuple[np.ndarray, list[float]]:
    """Return images and labels of some batches."""
    batches = [rig.forward() for _ in range(num_batches)]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels.tolist()
