"""Digits drawn by formula, for trainings on machines where MNIST is not: as many, of its size, about as hard.

Each is a line through the points of its shape, moved, turned, slanted, stretched and bent at random, of random width
and brightness, under noise. The same seed draws the same images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtrain.data.convert_mnist import encode_records
from dtrain.data.lmdb_writer import write_splits

SIZE, NUM_CLASSES = 28, 10
NUM_IMAGES = {"train": 60_000, "test": 10_000}
_AT_ONCE, _IN_CACHE = 500, 10  # images
_BEND, _TURN, _SLANT, _STRETCH = 0.055, 0.15, 0.2, 0.15  # standard deviations
_SHIFT = 1.5  # likewise, in pixels

# The points of each digit in a box of 1 x 1, x to the right and y down.
SHAPES = (
    "50,0 80,15 90,50 80,85 50,100 20,85 10,50 20,15 50,0",
    "30,22 55,0 55,35 55,70 55,100",
    "12,25 30,3 65,3 85,25 75,48 40,75 10,100 50,97 92,100",
    "15,8 55,0 82,20 70,42 40,48 75,55 88,78 60,100 12,92",
    "65,100 67,70 70,35 68,0 35,35 8,68 50,67 95,66",
    "85,0 50,2 22,3 18,42 55,37 85,55 82,85 50,100 12,92",
    "75,3 40,20 15,60 25,92 60,100 85,80 70,55 40,52 18,70",
    "10,3 50,2 90,3 70,35 50,65 38,100",
    "50,48 22,28 30,5 68,4 78,26 50,48 18,72 30,97 70,97 84,72 50,48",
    "82,28 60,48 28,42 20,15 50,0 80,12 82,45 75,75 55,100",
)


def write_digits(out: Path) -> None:
    """Write the LMDBs OUT/train and OUT/test, 1x28x28 as convert_mnist writes them, of ten classes."""
    splits = {}
    for seed, (split, count) in enumerate(NUM_IMAGES.items()):
        splits[split] = encode_records(*draw_digits(count, np.random.default_rng(seed)))
    write_splits(out, splits)


def draw_digits(count: int, random: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (count, 28, 28) and their labels (count,), 0 to 9."""
    labels = random.integers(0, NUM_CLASSES, count).astype(np.uint8)
    images = np.empty((count, SIZE, SIZE), np.uint8)
    for start in range(0, count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        images[part] = _draw(_lines(labels[part], random), random)
    return images, labels


def _lines(labels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.float32]:
    """Return the points of each digit's line, (N, points, 2), in pixels; the last one stands for those it lacks."""
    shapes = [[tuple(map(int, point.split(","))) for point in shape.split()] for shape in SHAPES]
    longest = max(map(len, shapes))
    padded = np.array([shape + shape[-1:] * (longest - len(shape)) for shape in shapes]) / 100 - 0.5
    lines = padded[labels]
    count = len(lines)
    bends = random.normal(0, _BEND, lines.shape)
    bends[:, 1:][(np.diff(lines, axis=1) == 0).all(axis=2)] = (
        0  # what stands for the last point stays near it
    )
    turn, slant = random.normal(0, _TURN, count), random.normal(0, _SLANT, count)
    stretch = np.exp(random.normal(0, _STRETCH, (count, 2))) * (12, 19)
    x, y = np.moveaxis(lines + bends, 2, 0)
    x = x + slant[:, None] * y
    x, y = x * stretch[:, :1], y * stretch[:, 1:]
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    turned = np.stack((x * cos - y * sin, x * sin + y * cos), axis=2)
    moved = turned + SIZE / 2 + random.normal(0, _SHIFT, (count, 1, 2))
    return moved.astype(np.float32)


def _draw(lines: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return the images (N, 28, 28) of lines."""
    count = len(lines)
    distance = np.concatenate([_distance(each) for each in np.array_split(lines, -(-count // _IN_CACHE))])
    width = random.uniform(0.7, 1.7, (count, 1))
    light = np.clip(width - distance + 0.5, 0, 1) * random.uniform(140, 255, (count, 1))
    noisy = light + random.normal(0, random.uniform(5, 25, (count, 1)), light.shape)
    images: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8).reshape(count, SIZE, SIZE)
    return images


def _distance(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far each pixel is from each line's nearest piece, (N, 28·28)."""
    pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).reshape(1, 1, -1, 2)
    x, y = np.moveaxis(pixels.astype(np.float32) + np.float32(0.5) - lines[:, :-1, None], 3, 0)
    dx, dy = np.moveaxis(np.diff(lines, axis=1)[:, :, None], 3, 0)
    place = np.clip((x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-9), 0, 1)
    distance: NDArray[np.float32] = np.sqrt(((x - place * dx) ** 2 + (y - place * dy) ** 2).min(axis=1))
    return distance
