"""dtrain test: the scores of a small net whose loss is known, on one rank and on two."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.net.scores import Score
from dtrain.core.snapshots import LayerRecord, write_caffemodel
from dtrain.launcher.commands.test import mean_lines
from dtrain.launcher.main import main
from dtrain.proto import caffe_pb2
from tests.played.cupy import play_cupy


@pytest.fixture
def weights(run_folder: Path) -> str:
    """Write weights with which the small net gives (3, 0.5) for (1, 1, 1); the targets are (2, 2)."""
    layer = caffe_pb2.LayerParameter(name="ip", type="InnerProduct")
    arrays = [np.array([[1, 1, 0.5], [0, 0, 0]], np.float32), np.array([0.5, 0.5], np.float32)]
    write_caffemodel(run_folder / "w.caffemodel", "tiny", [LayerRecord(layer, arrays)])
    return "w.caffemodel"


LOSS = (1.0**2 + 1.5**2) / 2  # the squared distance of each of 4 equal items, halved: 1.625


def messages(text: str) -> list[str]:
    return [line.partition("] ")[2] for line in text.splitlines() if "] " in line]


def test_test_with_known_weights_logs_batches_and_means(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["test", "--model", "net.prototxt", "--weights", weights, "--iterations", "2"]
    assert main(arguments) == 0
    logged = messages(capsys.readouterr().err)
    assert logged[-5:] == [
        "Running for 2 iterations.",
        f"Batch 0, loss = {LOSS}",
        f"Batch 1, loss = {LOSS}",
        f"Loss: {LOSS}",
        f"loss = {LOSS} (* 1 = {LOSS} loss)",
    ]


def test_test_on_two_ranks_has_the_same_means(
    weights: str, run_folder: Path, mpirun: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments = ["-m", "dtrain", "test", "--model", "net.prototxt", "--weights", weights, "--iterations", "3"]
    done = mpirun(2, arguments, cwd=run_folder)
    assert done.returncode == 0
    logged = messages(done.stderr)
    assert logged.count(f"Loss: {LOSS}") == 1
    assert [line for line in logged if line.startswith("Batch")] == [
        f"Batch 0, loss = {LOSS}",
        f"Batch 2, loss = {LOSS}",
    ]


def test_test_without_the_weights_file_is_a_users_mistake(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", "--model", "net.prototxt", "--weights", "absent.caffemodel"]) == 2
    assert "absent.caffemodel" in capsys.readouterr().err


def test_mean_lines_give_weighted_losses() -> None:
    scores = [Score("accuracy", 0.5, 0.0), Score("aux", 2.0, 0.3)]
    assert mean_lines(scores, 0.6) == ["Loss: 0.6", "accuracy = 0.5", "aux = 2 (* 0.3 = 0.6 loss)"]


@pytest.mark.usefixtures("bf16")
def test_test_in_bf16_rounds_the_weights(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 + 2⁻⁸ lies between two bf16 numbers and becomes 1, so that ip is 3 and the loss 4·(1² + 2²) / (2·4)."""
    layer = caffe_pb2.LayerParameter(name="ip", type="InnerProduct")
    arrays = [np.array([[1 + 2**-8] * 3, [0] * 3], np.float32), np.zeros(2, np.float32)]
    write_caffemodel(run_folder / "w.caffemodel", "tiny", [LayerRecord(layer, arrays)])
    arguments = ["test", "--model", "net.prototxt", "--weights", "w.caffemodel", "--iterations", "1"]
    losses = []
    for precision in ("bf16", "float32"):
        assert main([*arguments, "--precision", precision]) == 0
        losses.append(messages(capsys.readouterr().err)[-2])
    assert losses[0] == "Loss: 2.5"
    assert losses[1] != losses[0]


def test_test_on_a_gpu_has_the_cpus_scores(
    weights: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cupy = play_cupy(monkeypatch, num_devices=2)
    arguments = ["test", "--model", "net.prototxt", "--weights", weights, "--iterations", "2"]
    assert main([*arguments, "--engine", "cupy", "--gpu", "1"]) == 0
    assert messages(capsys.readouterr().err)[-2] == f"Loss: {LOSS}"
    assert cupy.cuda.runtime.getDevice() == 1
