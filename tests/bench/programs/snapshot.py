"""Save and load a model of 240 MB, and print the seconds as one line of JSON. The peer is a plain write and read.

snapshot.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dtrain.core.snapshots import LayerRecord, Manifest, SnapshotStore, load_weights
from dtrain.proto import caffe_pb2

NUM_LAYERS, NUM_VALUES = 6, 10_000_000  # 240 MB of float32


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Save, load and print."""
    folder = Path(sys.argv[1])
    arrays = [np.random.default_rng(i).random(NUM_VALUES, np.float32) for i in range(NUM_LAYERS)]
    params = [np.zeros_like(array) for array in arrays]
    records = [
        LayerRecord(caffe_pb2.LayerParameter(name=f"ip{i}", type="InnerProduct"), [array])
        for i, array in enumerate(arrays)
    ]
    manifest = Manifest(1, 1, {}, {}, 0, 0, 0, (), 0)
    store = SnapshotStore(folder / "bench")

    def load() -> None:
        for layer, param in zip(load_weights(store.model_path(1)), params, strict=True):
            param[...] = layer.blobs[0]

    def write_plainly() -> None:
        with open(folder / "plain", "wb") as file:
            for array in arrays:
                file.write(array)
            file.flush()
            os.fsync(file.fileno())

    result = {"save_s": timed(lambda: store.write("bench", records, [], manifest))}
    result["plain_write_s"] = timed(write_plainly)
    result["load_s"] = timed(load)
    result["plain_read_s"] = timed(lambda: np.fromfile(folder / "plain", np.float32))
    assert all(np.array_equal(a, p) for a, p in zip(arrays, params, strict=True))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
