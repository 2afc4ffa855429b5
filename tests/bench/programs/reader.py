"""Read raw images of 256x256 from an LMDB by the reader of Data, and print images/s as one line of JSON.

Twice: cropped, mirrored and with a mean off, as floats for a CPU; and left as stored, as bytes for a GPU. On one
thread, and on one for each core; CPU time per image says what it costs on a machine that is not quiet. The database
is in the file system's cache, since it has just been written.

reader.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dtrain.data.batch import Batch
from dtrain.data.datum import encode_datum
from dtrain.data.datum_reader import DatumReader
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.data.workers import Workers

NUM_RECORDS, BATCH_SIZE, NUM_BATCHES, NUM_BATCHES_AHEAD, NUM_ROUNDS = 2048, 256, 8, 5, 5
SPEC = TransformSpec(mirror=True, crop_size=227, mean_values=(104, 117, 123))


def records() -> Iterator[tuple[bytes, bytes]]:
    """Yield made-up Datums of 3x256x256 bytes."""
    random = np.random.default_rng(0)
    for i in range(NUM_RECORDS):
        yield b"%08d" % i, encode_datum(random.integers(0, 256, (3, 256, 256), np.uint8), i % 1000)


def make_reader(path: Path, leaves_images: bool, num_threads: int) -> tuple[DatumReader, list[Batch]]:
    """Return a reader and the batches that it fills in turn, as for a loader."""
    transformer = Transformer(SPEC, train=True)
    reader = DatumReader(LmdbSource(str(path)), Sampler(NUM_RECORDS), transformer, Workers(num_threads))
    shapes = reader.shapes
    if leaves_images:
        reader.leave_images()
        shapes = ((0,), *shapes[1:])
    batches = [Batch(BATCH_SIZE, shapes) for _ in range(NUM_BATCHES_AHEAD)]
    for batch in batches:  # their memory is there when time is taken
        reader.read(np.arange(BATCH_SIZE), batch)
    return reader, batches


def measure(reader: DatumReader, batches: list[Batch]) -> tuple[float, float]:
    """Return images/s, and microseconds of CPU time per image."""
    began, began_cpu = time.perf_counter(), time.process_time()
    for number in range(NUM_BATCHES):
        first = number * BATCH_SIZE
        reader.read(np.arange(first, first + BATCH_SIZE), batches[number % len(batches)])
    elapsed, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    num_images = NUM_BATCHES * BATCH_SIZE
    return num_images / elapsed, cpu / num_images * 1e6


def main() -> None:
    """Measure all ways in turn, and print the best of each."""
    path = Path(sys.argv[1]) / "images_256"
    if not path.exists():
        write_lmdb(path, records())
    num_cores = len(os.sched_getaffinity(0))
    result: dict[str, float] = {"num_cores": num_cores}
    ways = {
        f"{kind}_{num_threads}": make_reader(path, kind == "bytes", num_threads)
        for kind in ("floats", "bytes")
        for num_threads in sorted({1, num_cores})
    }
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(NUM_ROUNDS):
        for name, way in ways.items():
            rounds[name].append(measure(*way))
    for name, measured in rounds.items():
        result[f"{name}_per_s"] = max(per_s for per_s, _ in measured)
        result[f"{name}_cpu_us"] = min(cpu_us for _, cpu_us in measured)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
