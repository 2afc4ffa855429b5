"""dtrain summary: of a net, of a solver, and in each phase."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.launcher.commands.summary import memory_lines
from dtrain.launcher.main import main

TABLE = [
    "  layer  type           tops      params  mult-adds  blobs MB",
    "  data   DummyData      4x3, 4x2                         0.00",
    "  ip     InnerProduct   4x2            8         24      0.00",
    "  loss   EuclideanLoss  scalar                           0.00",
    "  total                                8         24      0.00",
    "  a batch of 4: 6 multiply-adds an image forward; params shared by layers count once",
]


@pytest.mark.parametrize(("file", "solver"), [("solver.prototxt", "Adam"), ("net.prototxt", "SGD")])
def test_summary_of_a_solver_or_net_prints_its_train_net_and_memory(
    run_folder: Path, file: str, solver: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (run_folder / "solver.prototxt").open("a") as text:
        text.write('type: "Adam"\n')
    assert main(["summary", file, "--engine", "reference"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'TRAIN net "tiny" (net.prototxt), engine reference'
    assert lines[1:7] == TABLE
    assert lines[7].startswith(f"  memory of a rank in training ({solver}): ")


def test_summary_in_test_has_no_memory_of_training(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", "solver.prototxt", "--phase", "TEST"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('TEST net "tiny" (net.prototxt)')
    assert lines[1:] == TABLE


def test_summary_in_test_of_a_solver_without_tests_is_a_users_mistake(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run_folder / "solver.prototxt").read_text()
    (run_folder / "solver.prototxt").write_text(text.replace("test_i", "# test_i"))
    assert main(["summary", "solver.prototxt", "--phase", "TEST"]) == 2
    assert "--phase TEST: the solver must have a test net, got none" in capsys.readouterr().err


def test_summary_of_a_net_that_learns_nothing_has_no_memory_of_training(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run_folder / "net.prototxt").read_text()
    (run_folder / "net.prototxt").write_text(text[: text.index('layer { name: "loss"')])
    assert main(["summary", "net.prototxt"]) == 0
    assert "memory of a rank" not in capsys.readouterr().out


def test_memory_lines_add_up_and_fit_the_page() -> None:
    parts = {f"part number {k}": k * 1_000_000 for k in range(20)}
    title, *lines = memory_lines(parts, "SGD")
    assert title == "  memory of a rank in training (SGD): 190.0 MB"
    assert max(map(len, lines)) <= 100
    joined = " ".join(line.strip() for line in lines)
    assert joined == ", ".join(
        f"part number {k} {k}.0" for k in range(1, 20)
    )  # what takes nothing is left out
