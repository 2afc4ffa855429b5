"""dtrain summary: of a net, of a solver, and in each phase."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtrain.launcher.main import main
from tests.launcher.simulation.nets import DATA, dims, inner_product, loss

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


@pytest.mark.parametrize(
    ("engine", "precision", "workspace"),
    [("cudnn", "float32", True), ("cudnn", "bf16", True), ("cupy", "float32", False)],
)
def test_summary_by_an_engine_for_gpus_is_of_a_gpus_memory_and_needs_none(
    run_folder: Path, capsys: pytest.CaptureFixture[str], engine: str, precision: str, workspace: bool
) -> None:
    net = DATA.format(data=dims(4, 1, 5, 5), target=dims(4, 2))
    net += 'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {'
    net += " num_output: 2 kernel_size: 3 } }" + inner_product("ip", "conv", 2) + loss("ip")
    (run_folder / "net.prototxt").write_text(f'name: "tiny"\n{net}')
    assert main(["summary", "solver.prototxt", "--engine", engine, "--precision", precision]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'TRAIN net "tiny" (net.prototxt), engine {engine}'
    (title,) = [line for line in lines if "memory of a rank" in line]
    assert title.startswith("  memory of a rank's GPU in training (SGD): 600.0 MB")
    assert title.endswith(", and a workspace of up to 1,073.7") == workspace
    assert lines[-1].endswith(" MB of it for each image of 4") or "run as one" in lines[-1]


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


def test_summary_with_recompute_says_so_and_takes_less(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run_folder / "net.prototxt").read_text()
    below, deep = "ip", ""
    for k in range(30):
        deep += f'layer {{ name: "d{k}" type: "TanH" bottom: "{below}" top: "d{k}" }}\n'
        below = f"d{k}"
    place = text.index('layer { name: "loss"')
    text = text[:place] + deep + text[place:].replace('bottom: "ip"', f'bottom: "{below}"')
    text = text.replace("shape { dim: 4 dim: 3 }", "shape { dim: 4000 dim: 3 }")
    (run_folder / "net.prototxt").write_text(
        text.replace("shape { dim: 4 dim: 2 }", "shape { dim: 4000 dim: 2 }")
    )
    blobs = []
    for flags in ([], ["--recompute"]):
        assert main(["summary", "net.prototxt", *flags]) == 0
        said = capsys.readouterr().out
        assert ("memory of a rank in training (SGD, recomputing): " in said) == bool(flags)
        blobs.append(float(re.findall(r"blobs ([\d.]+)", said)[-1]))
    assert blobs[1] < 0.6 * blobs[0]
