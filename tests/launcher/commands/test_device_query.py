"""dtrain device-query, on played GPUs: Caffe's lines."""

from __future__ import annotations

import pytest

from dtrain.launcher.main import main
from tests.played.cuda import TOTAL_BYTES
from tests.played.cupy import play_cupy

# The labels and columns of caffe's DeviceQuery (common.cpp).
LINES = f"""\
Device id:                     1
Major revision number:         9
Minor revision number:         0
Name:                          Played 1
Total global memory:           {TOTAL_BYTES}
Total shared memory per block: 49152
Total registers per block:     65536
Warp size:                     32
Maximum memory pitch:          2147483647
Maximum threads per block:     1024
Maximum dimension of block:    1024, 1024, 64
Maximum dimension of grid:     2147483647, 65535, 65535
Clock rate:                    1980000
Total constant memory:         65536
Texture alignment:             512
Concurrent copy and execution: Yes
Number of multiprocessors:     132
Kernel execution timeout:      No
"""


def test_device_query_of_a_gpu_prints_caffes_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play_cupy(monkeypatch, num_devices=2)
    assert main(["device_query", "-gpu", "1"]) == 0
    assert capsys.readouterr().out == LINES


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [([], ["0", "1", "2"]), (["--gpu", "all"], ["0", "1", "2"]), (["--gpu", "2,0"], ["2", "0"])],
)
def test_device_query_of_several_prints_each(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    numbers: list[str],
) -> None:
    play_cupy(monkeypatch, num_devices=3)
    assert main(["device-query", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("Device id:")] == numbers


@pytest.mark.parametrize(
    ("num_devices", "chosen", "sentence"),
    [
        (2, "0,5", "--gpu: the numbers must be of GPUs that are here, 0, 1, got 5"),
        (2, "x", '--gpu: must be all, or the numbers of GPUs separated by commas, got "x"'),
        (0, "0", "--gpu 0: CUDA must find a GPU that it can use, got cudaErrorNoDevice"),
    ],
)
def test_device_query_of_what_is_not_there_is_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    num_devices: int,
    chosen: str,
    sentence: str,
) -> None:
    play_cupy(monkeypatch, num_devices)
    assert main(["device-query", "--gpu", chosen]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence)
    assert captured.out == ""


def test_device_query_without_gpus_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play_cupy(monkeypatch, num_devices=0)
    assert main(["device-query"]) == 0
    assert capsys.readouterr().out.startswith(
        "No cuda device present: CUDA must find a GPU that it can use, got"
    )
