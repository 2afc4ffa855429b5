"""dtrain time: Caffe's lines for a small net."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtrain.launcher.main import main
from tests.launcher.simulation.nets import DATA, dims, inner_product, loss
from tests.played.cupy import play_cupy


def test_time_of_a_small_net_logs_each_layer_both_ways(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "--model", "net.prototxt", "--iterations", "2", "--phase", "TEST"]) == 0
    captured = capsys.readouterr()
    logged = captured.err
    rows = re.findall(r"\] +(\w+)\t(forward|backward): [\d.e-]+ ms\. \([\d.]+%\)$", logged, re.MULTILINE)
    assert rows == [(name, way) for name in ("data", "ip", "loss") for way in ("forward", "backward")]
    assert len(re.findall(r"Iteration: \d forward-backward time: [\d.e-]+ ms\.$", logged, re.MULTILINE)) == 2
    assert "] Initial loss: 4\n" in logged  # weights of 0: 4 items of 2² + 2², over 2·4
    assert logged.endswith("] *** Benchmark ends ***\n")
    table = [line.split() for line in captured.out.splitlines()]
    assert [row[:2] for row in table[1:4]] == [
        ["data", "DummyData"],
        ["ip", "InnerProduct"],
        ["loss", "EuclideanLoss"],
    ]
    assert (table[4][0], table[4][-1]) == ("total", "100.0%")
    assert table[5][-1] == "images/s"


def test_time_of_an_unknown_phase_lists_the_known(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "--model", "net.prototxt", "--phase", "TRIAN"]) == 2
    assert "choose from" in capsys.readouterr().err


@pytest.mark.usefixtures("bf16")
def test_time_in_bf16_says_so(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", "net.prototxt", "--iterations", "1", "--precision", "bf16"]) == 0
    assert re.search(r"\] Using onednn: oneDNN [\d.]+, bf16, ", capsys.readouterr().err)


def test_time_on_a_gpu_says_which(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cupy(monkeypatch, num_devices=2)
    arguments = ["time", "--model", "net.prototxt", "--iterations", "1", "--engine", "cupy", "--gpu", "1"]
    assert main(arguments) == 0
    assert "] Using cupy: cupy played, GPU 1 (Played 1)\n" in capsys.readouterr().err


def test_time_with_recomputation_says_what_it_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DATA.format(data=dims(4, 64), target=dims(4, 10)) + inner_product("ip", "data", 64)
    names = ["ip", *(f"y{k}" for k in range(30))]
    for below, top in zip(names, names[1:], strict=False):
        text += f'layer {{ name: "{top}" type: "TanH" bottom: "{below}" top: "{top}" }}\n'
    model = tmp_path / "deep.prototxt"
    model.write_text(text + inner_product("end", names[-1], 10) + loss("end"))
    command = ["time", "--model", str(model), "--iterations", "2"]
    assert main(command) == 0
    assert "recomputing" not in capsys.readouterr().out
    assert main([*command, "--recompute"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"  recomputing: \d+\.\d{3} ms of it, \d+\.\d%, for layers that run forward again", last)


def test_time_with_recomputation_of_a_net_that_would_not_need_less_says_so(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "--model", "net.prototxt", "--iterations", "1", "--recompute"]) == 0
    captured = capsys.readouterr()
    assert "--recompute: no layer runs forward again" in captured.err
    assert "recomputing" not in captured.out
