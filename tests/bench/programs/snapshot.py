"""Save and load a model of 240 MB in each format, and print the seconds as one line of JSON. The peers are a plain
write and read and, if it is installed, h5py's own.

snapshot.py FOLDER
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dtrain.core.snapshots import LayerRecord, Manifest, SnapshotStore, format_named, load_weights
from dtrain.proto import caffe_pb2

NUM_LAYERS, NUM_VALUES = 6, 10_000_000  # 240 MB of float32


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def time_format(folder: Path, name: str, arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the seconds of saving and of loading in a format; the values must come back."""
    records = [
        LayerRecord(caffe_pb2.LayerParameter(name=f"ip{i}", type="InnerProduct"), [array])
        for i, array in enumerate(arrays)
    ]
    params = [np.zeros_like(array) for array in arrays]
    store = SnapshotStore(folder / name, format_named(name))

    def load() -> None:
        for layer, param in zip(load_weights(store.model_path(1)), params, strict=True):
            param[...] = layer.blobs[0]

    save_s = timed(lambda: store.write("bench", records, [], Manifest(1, 1, {}, {}, 0, 0, 0, (), 0)))
    load_s = timed(load)
    assert all(np.array_equal(a, p) for a, p in zip(arrays, params, strict=True))
    return save_s, load_s


def time_plain(folder: Path, arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the seconds of writing the bytes to the disk, and of reading them."""

    def write() -> None:
        with open(folder / "plain", "wb") as file:
            for array in arrays:
                file.write(array)
            file.flush()
            os.fsync(file.fileno())

    return timed(write), timed(lambda: np.fromfile(folder / "plain", np.float32))


def time_h5py(folder: Path, arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the seconds of h5py's own writing to the disk, and of its reading into arrays that are there."""
    import h5py

    params = [np.zeros_like(array) for array in arrays]

    def write() -> None:
        with open(folder / "plain.h5", "w+b") as file:
            with h5py.File(folder / "plain.h5", "w") as root:
                for i, array in enumerate(arrays):
                    root.create_dataset(f"data/ip{i}/0", data=array)
            os.fsync(file.fileno())

    def read() -> None:
        with h5py.File(folder / "plain.h5") as root:
            for i, param in enumerate(params):
                root[f"data/ip{i}/0"].read_direct(param)

    return timed(write), timed(read)


def main() -> None:
    """Save, load and print."""
    folder = Path(sys.argv[1])
    arrays = [np.random.default_rng(i).random(NUM_VALUES, np.float32) for i in range(NUM_LAYERS)]
    result = {}
    result["save_s"], result["load_s"] = time_format(folder, "BINARYPROTO", arrays)
    result["plain_write_s"], result["plain_read_s"] = time_plain(folder, arrays)
    if importlib.util.find_spec("h5py") is not None:
        result["hdf5_save_s"], result["hdf5_load_s"] = time_format(folder, "HDF5", arrays)
        result["h5py_write_s"], result["h5py_read_s"] = time_h5py(folder, arrays)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
