"""The option --synthetic: how its shape is given, and training on made-up records through the command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from dtrain.core.solver.recipe import read_recipe
from dtrain.data.synthetic_reader import Synthetic
from dtrain.launcher.main import main
from dtrain.launcher.synthetic import make_up_all, parse_synthetic
from tests.conftest import Mpirun

NET = """\
layer {
  name: "data" type: "Data" top: "data" top: "label"
  transform_param { crop_size: 6 mirror: true mean_file: "absent.binaryproto" scale: 0.01 }
  data_param { source: "absent" backend: LMDB batch_size: %d }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 display: 1 random_seed: 1\n'
NO_SNAPSHOT = "snapshot_after_train: false\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with a solver and a net whose database is not there."""
    (tmp_path / "net.prototxt").write_text(NET % 8)
    (tmp_path / "solver.prototxt").write_text(SOLVER + "test_iter: 2 test_interval: 4\n" + NO_SNAPSHOT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("3x227x227", ((3, 227, 227),)),
        ("1x1x1", ((1, 1, 1),)),
        ("10", ((10,),)),
        ("40x8,40,1", ((40, 8), (40,), ())),
    ],
)
def test_parse_synthetic_of_shapes(text: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    assert parse_synthetic(text) == Synthetic(shapes)


@pytest.mark.parametrize(
    "text", ["", "net.prototxt", "3x", "0x3x3", "3x-1x2", "3x2.5x2", "3X2X2", "²", "3,", ",3"]
)
def test_parse_synthetic_of_anything_else_raises(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a shape such as 3x256x256"):
        parse_synthetic(text)


def test_make_up_all_reaches_every_net_of_a_solver(folder: Path) -> None:
    recipe = make_up_all(read_recipe("solver.prototxt"), Synthetic())
    assert [net.synthetic for net in (recipe.train, *recipe.tests)] == [Synthetic(), Synthetic()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--solver", "solver.prototxt"],
        ["test", "--model", "net.prototxt", "--weights", "net.caffemodel", "--iterations", "2"],
        ["time", "--model", "net.prototxt", "--iterations", "1"],
        ["check", "solver.prototxt"],
        ["check", "net.prototxt"],
        ["check", "net.prototxt", "--simulate", "2x1", "--link", "10GB/s,5us", "--flops", "1e9"],
        ["summary", "solver.prototxt"],
    ],
)
def test_commands_with_synthetic_need_no_data_and_warn(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if "--weights" in arguments:
        (folder / "solver.prototxt").write_text(SOLVER + 'snapshot_prefix: "net"\n')
        assert main(["train", "--solver", "solver.prototxt", "--synthetic"]) == 0
        (folder / "net_iter_4.caffemodel").rename(folder / "net.caffemodel")
        capsys.readouterr()
    assert main(arguments) == 2
    assert "absent" in capsys.readouterr().err
    assert main([*arguments, "--synthetic", "3x8x8"]) == 0
    logged = capsys.readouterr().err
    assert logged.count("ALL RECORDS ARE MADE UP") == 1
    assert "10000 made-up records of 3x8x8,1, after --synthetic" in logged


def test_train_without_its_data_is_told_of_synthetic(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solver.prototxt"]) == 2
    said = capsys.readouterr().err
    assert said.count("absent is not there; to run without it, on made-up records: --synthetic") == 1
    assert said.index("--synthetic") < said.index("absent: LMDB must exist")


def test_train_with_synthetic_shows_the_same_losses_on_any_ranks(folder: Path, mpirun: Mpirun) -> None:
    losses = []
    for num_ranks in (1, 2):
        (folder / "net.prototxt").write_text(NET % (8 // num_ranks))
        (folder / "solver.prototxt").write_text(SOLVER + NO_SNAPSHOT)
        result = mpirun(num_ranks, ["-m", "dtrain", "solver.prototxt", "--synthetic"], cwd=folder)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("ALL RECORDS ARE MADE UP") == 1
        losses.append([float(loss) for loss in re.findall(r"Iteration \d.*loss = ([\d.]+)", result.stderr)])
    assert len(losses[0]) >= 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
