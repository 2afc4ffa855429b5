"""How long a GPU waits for records: CaffeNet trained from an LMDB of 256x256 images, cropped, mirrored; as JSON.

gpu_data.py [bf16]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from gpu_played import IS_PLAYED, play_if_asked
from made_up import narrowed

from dtrain.core.engines import create_engine
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.dist.create import create_communicator
from dtrain.proto import caffe_pb2

NUM_RECORDS, BATCH_SIZE, NUM_ITERATIONS = (8, 2, 2) if IS_PLAYED else (2048, 256, 60)
NUM_TO_WARM_UP, NUM_LABELS = (1, 2) if IS_PLAYED else (5, 1000)
NET = Path(__file__).resolve().parents[3] / "configs/caffenet/train_val.prototxt"


def records() -> Iterator[tuple[bytes, bytes]]:
    """Yield made-up Datums."""
    random = np.random.default_rng(0)
    for i in range(NUM_RECORDS):
        yield b"%08d" % i, encode_datum(random.integers(0, 256, (3, 256, 256), np.uint8), i % NUM_LABELS)


def write_solver(folder: Path, precision: str) -> Path:
    """Write CaffeNet's train net, reading from `folder`, and a solver for it."""
    (folder / "net.prototxt").write_text(net_text(folder / "lmdb"))
    solver = folder / "solver.prototxt"
    solver.write_text(
        f'train_net: "{folder / "net.prototxt"}"\nbase_lr: 0.0001 momentum: 0.9 lr_policy: "fixed"\n'
        "max_iter: 100000\ndisplay: 0\nsnapshot_after_train: false\n"
        f"dtrain_param {{ precision: {precision} }}\n"
    )
    return solver


def net_text(database: Path) -> str:
    """Return CaffeNet's file with this database, batch size and mean values in place of its own."""
    net = text_format.Parse(NET.read_text(), caffe_pb2.NetParameter())
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source, layer.data_param.batch_size = os.fspath(database), BATCH_SIZE
            layer.transform_param.ClearField("mean_file")
            layer.transform_param.mean_value[:] = [104, 117, 123]
    text = text_format.MessageToString(net)
    return narrowed(text, 2) if IS_PLAYED else text


def main() -> None:
    """Train and print."""
    play_if_asked()
    precision = "BF16" if "bf16" in sys.argv[1:] else "FLOAT32"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lmdb(folder / "lmdb", records())
        recipe = read_recipe(os.fspath(write_solver(folder, precision)))
        engine = create_engine("cudnn", precision)
        solver = Solver(recipe, engine=engine, communicator=create_communicator("single", {}))
        solver.fuse()
        share_memory([solver.net])
        solver.capture()
        solver.step(NUM_TO_WARM_UP)
        loader = solver.net.reading_layers[0].loader
        waited_s, began = loader.waited_s, time.perf_counter()
        solver.step(NUM_ITERATIONS)
        engine.xp.cuda.get_current_stream().synchronize()
        elapsed_s = time.perf_counter() - began
        waited_s = loader.waited_s - waited_s
        solver.close()
    images_per_s = BATCH_SIZE * NUM_ITERATIONS / elapsed_s
    print(
        json.dumps({"batch_size": BATCH_SIZE, "images_per_s": images_per_s, "waiting": waited_s / elapsed_s})
    )


if __name__ == "__main__":
    main()
