"""Choosing a real GPU: what cupy tells of it, and that commands and scripts compute on the one they are given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtrain.core.engines import GPU_ENGINES
from dtrain.core.engines.cupy.devices import find_attributes, find_devices, find_versions
from dtrain.core.snapshots import load_weights
from dtrain.launcher.commands.device_query import ATTRIBUTES

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "target" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 dim: 2 }
  data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""
SOLVER = (
    'net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 5 display: 1 random_seed: 1\n'
    'snapshot_prefix: "ENGINE"\n'
)
SCRIPT = """
import dtrain as caffe
caffe.set_device(DEVICE)
caffe.set_mode_gpu()
solver = caffe.get_solver("solver.prototxt")
solver.step(2)
blob = solver.net.params["conv"][0]
import cupy
assert cupy.cuda.runtime.getDevice() == DEVICE
attributes = cupy.cuda.runtime.pointerGetAttributes(blob._gpu_data_ptr)
assert (attributes.type, attributes.device) == (cupy.cuda.runtime.memoryTypeDevice, DEVICE)
print("computed")
"""


@pytest.fixture(scope="module")
def last_gpu(gpus: int) -> int:
    """Return the number of the last GPU here."""
    return gpus - 1


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a net and a solver."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def test_find_devices_tells_of_each(last_gpu: int) -> None:
    devices = find_devices()
    assert [device.number for device in devices] == list(range(last_gpu + 1))
    for device in devices:
        assert 0 < device.free_bytes <= device.total_bytes
        assert device.name
        assert find_attributes(device.number, ATTRIBUTES)["WarpSize"] == 32
    assert set(find_versions()) == {"cupy", "CUDA runtime", "driver's CUDA"}


def test_device_query_and_doctor_name_each(last_gpu: int, folder: Path) -> None:
    queried = run(["-m", "dtrain", "device-query"], folder)
    assert queried.returncode == 0, queried.stderr
    assert f"Device id:                     {last_gpu}\n" in queried.stdout
    looked = run(["-m", "dtrain", "doctor"], folder)
    assert f"GPU {last_gpu}:" in looked.stdout, looked.stdout + looked.stderr


def test_train_on_a_gpu_reaches_the_weights_of_the_cpu(last_gpu: int, folder: Path) -> None:
    weights = {}
    for engine in ("reference", *GPU_ENGINES):
        (folder / "solver.prototxt").write_text(SOLVER.replace("ENGINE", engine))
        gpu = [] if engine == "reference" else ["--gpu", str(last_gpu)]
        done = run(["-m", "dtrain", "solver.prototxt", "--engine", engine, *gpu], folder)
        assert done.returncode == 0, done.stderr
        layers = load_weights(folder / f"{engine}_iter_5.caffemodel")
        weights[engine] = [blob for layer in layers for blob in layer.blobs if blob is not None]
    for engine in GPU_ENGINES:
        for ours, expected in zip(weights[engine], weights["reference"], strict=True):
            assert abs(ours - expected).max() <= 2e-2 * abs(expected).max(), engine  # TF32 has 11 bits


def test_train_by_default_is_on_a_gpu(last_gpu: int, folder: Path) -> None:
    done = run(["-m", "dtrain", "solver.prototxt"], folder)
    assert done.returncode == 0, done.stderr
    assert any(f"] Using {engine}: " in done.stderr for engine in GPU_ENGINES), done.stderr


def test_script_in_mode_gpu_computes_there_and_gives_addresses(last_gpu: int, folder: Path) -> None:
    done = run(["-c", SCRIPT.replace("DEVICE", str(last_gpu))], folder)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["computed"]), done.stderr
