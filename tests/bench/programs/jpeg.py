"""Read JPEGs of 500x375 by the readers of ImageData and Data, and print images/s as one line of JSON.

The peer is simplejpeg alone, which decodes the same bytes, from memory, on one thread, and then on one for each core,
which on shared machines is less than so many times as fast. The readers crop 227x227 at random, mirror and subtract a
mean, on one thread for each core. CPU time per image says what they cost on a machine
that is not quiet.

jpeg.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg

from dtrain.data.batch import Batch
from dtrain.data.batch_reader import BatchReader
from dtrain.data.datum_reader import DatumReader
from dtrain.data.image_list import ImageList
from dtrain.data.image_reader import ImageReader, ImageSpec
from dtrain.data.image_resize import resize_bilinear
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.data.workers import Workers
from dtrain.proto import caffe_pb2

NUM_IMAGES, BATCH_SIZE, NUM_BATCHES, NUM_BATCHES_AHEAD, NUM_ROUNDS = 64, 64, 4, 5, 8
HEIGHT, WIDTH, CROP_SIZE, QUALITY = 375, 500, 227, 90
SPEC = TransformSpec(mirror=True, crop_size=CROP_SIZE, mean_values=(104, 117, 123))


def draw_jpegs() -> list[bytes]:
    """Return JPEGs of smooth shapes and some grain, of about as many bytes as photographs."""
    random = np.random.default_rng(0)
    jpegs = []
    for _ in range(NUM_IMAGES):
        shapes = [random.integers(0, 256, (3 * size, 4 * size, 3), np.uint8) for size in (2, 8, 32)]
        layers = [resize_bilinear(shape, HEIGHT, WIDTH) for shape in shapes]
        grain = random.normal(0, 4, (HEIGHT, WIDTH, 3))
        image = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2] + grain
        pixels = image.clip(0, 255).astype(np.uint8)
        jpegs.append(simplejpeg.encode_jpeg(pixels, QUALITY, colorsubsampling="420"))
    return jpegs


def make_readers(folder: Path, jpegs: list[bytes], num_threads: int) -> dict[str, BatchReader]:
    """Write the JPEGs to files and to an LMDB, and return a reader of each."""
    for index, jpeg in enumerate(jpegs):
        (folder / f"{index}.jpg").write_bytes(jpeg)
    (folder / "list.txt").write_text("".join(f"{index}.jpg {index}\n" for index in range(len(jpegs))))
    datums = [caffe_pb2.Datum(data=jpeg, encoded=True, label=1).SerializeToString() for jpeg in jpegs]
    write_lmdb(folder / "lmdb", ((b"%08d" % index, datum) for index, datum in enumerate(datums)))
    images, source = ImageList(str(folder / "list.txt")), LmdbSource(str(folder / "lmdb"))
    spec = ImageSpec(folder=f"{folder}/")
    return {
        "files": ImageReader(
            images, spec, Sampler(NUM_IMAGES), Transformer(SPEC, train=True), Workers(num_threads)
        ),
        "lmdb": DatumReader(source, Sampler(NUM_IMAGES), Transformer(SPEC, train=True), Workers(num_threads)),
    }


def measure(action: Callable[[], object], num_images: int) -> tuple[float, float]:
    """Return images/s, and microseconds of CPU time per image, of an action."""
    began, began_cpu = time.perf_counter(), time.process_time()
    action()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return num_images / elapsed, cpu / num_images * 1e6


def decode_alone(jpegs: list[bytes]) -> None:
    """Decode with simplejpeg on this thread."""
    for jpeg in jpegs:
        simplejpeg.decode_jpeg(jpeg, "BGR")


def decode_on_all_cores(jpegs: list[bytes], num_threads: int) -> None:
    """Decode with simplejpeg on so many threads, each all of `jpegs`."""
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(decode_alone, [jpegs] * num_threads))


def read_batches(reader: BatchReader, batches: list[Batch]) -> None:
    """Let a reader fill batches in turn, as a loader does."""
    for number in range(NUM_BATCHES):
        reader.read(np.arange(number * BATCH_SIZE, (number + 1) * BATCH_SIZE), batches[number % len(batches)])


def main() -> None:
    """Measure the peer and each reader in turn, and print the best of each."""
    jpegs = draw_jpegs()
    num_cores = len(os.sched_getaffinity(0))
    readers = make_readers(Path(sys.argv[1]), jpegs, num_cores)
    batches = [Batch(BATCH_SIZE, readers["files"].shapes) for _ in range(NUM_BATCHES_AHEAD)]
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in ("alone", "cores", *readers)}
    for _ in range(NUM_ROUNDS):
        rounds["alone"].append(measure(lambda: decode_alone(jpegs * 2), 2 * NUM_IMAGES))
        on_all = partial(decode_on_all_cores, jpegs * 2, num_cores)
        rounds["cores"].append(measure(on_all, 2 * NUM_IMAGES * num_cores))
        for name, reader in readers.items():
            fill = partial(read_batches, reader, batches)
            rounds[name].append(measure(fill, NUM_BATCHES * BATCH_SIZE))
    result: dict[str, float] = {"num_cores": num_cores, "jpeg_bytes": sum(map(len, jpegs)) / NUM_IMAGES}
    for name, measured in rounds.items():
        result[f"{name}_per_s"] = max(per_s for per_s, _ in measured)
        result[f"{name}_cpu_us"] = min(cpu_us for _, cpu_us in measured)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
