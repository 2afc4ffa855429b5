"""The memory of training a net of configs/ on made-up records: predicted before it runs, or measured.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 memory.py HOW NAME BATCH_SIZE [OPTION…]

HOW: predict is what `dtrain summary` says; measure is the peak of a process in which `dtrain train` trains three
iterations. OPTION: those of both commands, such as --synthetic 3x32x32, --precision bf16, --recompute, and
--keep-blobs of the latter. Prints JSON: "mb", and of a prediction its parts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dtrain.core.engines import create_engine
from dtrain.core.net.building import build_net
from dtrain.core.prototxt import read_text
from dtrain.data.sampler import Shard
from dtrain.launcher.commands import summary
from dtrain.launcher.simulation.memory import count_training
from dtrain.launcher.synthetic import make_up
from dtrain.proto import caffe_pb2

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
NUM_ITERATIONS = 3
MB = 1e6
# A process that has loaded no more than `dtrain train` does.
TRAIN = """
import sys
from dtrain.launcher.main import main
from dtrain.launcher.simulation.memory_process import peak_bytes
code = main(["train", *sys.argv[1:]])
print(peak_bytes())
sys.exit(code)
"""


def write_solver(folder: Path, name: str, batch_size: int) -> Path:
    """Write the net of configs/`name` with batches of another size, and a solver that does nothing but train it."""
    net = read_text(os.fspath(CONFIGS / name / "train_val.prototxt"), caffe_pb2.NetParameter).message
    for layer in net.layer:
        for field in ("data_param", "image_data_param"):
            if layer.HasField(field):
                getattr(layer, field).batch_size = batch_size
    (folder / "net.prototxt").write_text(str(net))
    solver = folder / "solver.prototxt"
    solver.write_text(
        f'net: "{folder}/net.prototxt" base_lr: 0.001 momentum: 0.9 weight_decay: 0.004 lr_policy: "fixed" '
        f"max_iter: {NUM_ITERATIONS} snapshot_after_train: false"
    )
    return solver


def predict(solver: Path, options: list[str]) -> dict[str, float]:
    """Return the megabytes of each part, as `dtrain summary` counts them."""
    parser = argparse.ArgumentParser()
    summary.add_arguments(parser)
    args = parser.parse_args([os.fspath(solver), *options])
    param, recipe = summary.read(args)
    engine = create_engine(None, caffe_pb2.Precision.Name(param.dtrain_param.precision))
    net = build_net(make_up(recipe, args.synthetic), engine, Shard(0, 1))
    parts = {part: num_bytes / MB for part, num_bytes in count_training(net, param).items()}
    net.close()
    return {"mb": sum(parts.values()), **parts}


def measure(solver: Path, options: list[str]) -> dict[str, float]:
    """Return the most megabytes that a process has had which has trained."""
    command = [sys.executable, "-c", TRAIN, "--solver", os.fspath(solver), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"mb": int(done.stdout.splitlines()[-1]) / MB}


def main() -> None:
    """Predict or measure as the command line asks for."""
    how, name, batch_size, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        solver = write_solver(Path(folder), name, int(batch_size))
        print(json.dumps((predict if how == "predict" else measure)(solver, options)))


if __name__ == "__main__":
    main()
