"""dtrain check: a solver, a net, and what is wrong with either."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.launcher.commands.check import is_net_file
from dtrain.launcher.main import main
from tests.played.cupy import play_cupy


@pytest.mark.parametrize(
    ("text", "is_net"),
    [
        ('name: "n"\nlayer { name: "a" }', True),
        ("# layer\nlayers <\n>", True),
        ('input: "data"', True),
        ('net: "layer"\nbase_lr: 1', False),
        ("net_param { layer { name: 'x' } }\nbase_lr: 1", False),
        ("net: 'in # quotes'  # layer\n", False),
        ("", False),
    ],
)
def test_is_net_file_by_its_outermost_fields(tmp_path: Path, text: str, is_net: bool) -> None:
    (tmp_path / "file").write_text(text)
    assert is_net_file(str(tmp_path / "file")) is is_net


def test_is_net_file_that_is_missing_is_false(tmp_path: Path) -> None:
    assert not is_net_file(str(tmp_path / "absent"))


def test_check_of_a_solver_describes_run_and_nets(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "solver.prototxt", "--engine", "reference"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("solver.prototxt: SGD solver, 6 iterations, 1 rank, engine reference")
    assert 'TRAIN net "tiny" (net.prototxt), 3 layers' in lines
    assert 'TEST net "tiny" (net.prototxt), 3 layers' in lines
    assert lines[-1] == "ok"


@pytest.mark.usefixtures("bf16")
def test_check_of_a_solver_in_bf16_builds_its_nets_so(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (run_folder / "solver.prototxt").open("a") as solver:
        solver.write("dtrain_param { precision: BF16 }")
    assert main(["check", "solver.prototxt"]) == 0
    assert ", bf16, " in capsys.readouterr().out.splitlines()[0]
    assert main(["check", "solver.prototxt", "--engine", "reference"]) == 2
    assert "precision must be FLOAT32, got BF16" in capsys.readouterr().err


def test_check_of_a_net_alike_in_both_phases_describes_it_once(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "net.prototxt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if " net " in line] == [
        'TRAIN and TEST net "tiny" (net.prototxt), 3 layers'
    ]
    assert lines[-1] == "ok"


def test_check_of_a_net_with_mistakes_in_each_phase_tells_all(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (run_folder / "net.prototxt").open("a") as net:
        for phase in ("TRAIN", "TEST"):
            net.write(
                f'layer {{ name: "in_{phase}" type: "ReLU" bottom: "ipp" top: "x" '
                f"include {{ phase: {phase} }} }}\n"
            )
    assert main(["check", "net.prototxt"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [phase for phase in ("TRAIN", "TEST") if f'layer "in_{phase}"' in captured.err] == [
        "TRAIN",
        "TEST",
    ]
    assert "Traceback" not in captured.err


def test_check_of_a_solver_with_a_gpu_builds_its_nets_there(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cupy(monkeypatch, num_devices=2)
    assert main(["check", "solver.prototxt", "--gpu", "1", "--engine", "cupy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("1 rank, engine cupy: cupy played, GPU 1 (Played 1)")
    assert [line for line in lines if "memory of a rank" in line] == [
        "  memory of a rank's GPU in training (SGD): 600.0 MB"  # of a net of a few values
    ]
    assert lines[-1] == "ok"


def test_check_of_a_solver_whose_device_id_is_no_gpu_says_where(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cupy(monkeypatch, num_devices=2)
    with (run_folder / "solver.prototxt").open("a") as solver:
        solver.write("solver_mode: GPU\ndevice_id: 2\n")
    assert main(["check", "solver.prototxt"]) == 2
    assert "solver.prototxt:12: device_id must be 0 to 1 on " in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ["--gpu", "0"],
        *(["--engine", engine] for engine in ("cudnn", "cupy")),
        *(["--communicator", name] for name in ("nccl", "nccl-hierarchical")),
    ],
)
def test_check_simulate_with_gpus_is_a_sentence(
    run_folder: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    question = ["--simulate", "2x2", "--link", "10GB/s,5us"]
    assert main(["check", "solver.prototxt", *question, *option]) == 2
    assert (
        f"--simulate: it measures on a CPU, got {' '.join(option)}; leave that out" in capsys.readouterr().err
    )
