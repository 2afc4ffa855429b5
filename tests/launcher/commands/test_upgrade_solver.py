"""dtrain upgrade-solver: solver files of every age come out as today's."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.prototxt import parse_text, read_text
from dtrain.launcher.main import main
from dtrain.proto import caffe_pb2

OLD = """net: "net.prototxt" base_lr: 0.01 # a comment
lr_policy: "fixed"
solver_type: ADAGRAD
"""
WITH_NETS = """base_lr: 0.01 type: "SGD"
net_param { name: "n" layers { name: "a" type: RELU bottom: "x" top: "y" } }
test_net_param { layers { layer { name: "a" type: "relu" } } }
test_net_param { layer { name: "a" type: "ReLU" } }
"""


def run(folder: Path, text: str, *options: str) -> tuple[int, caffe_pb2.SolverParameter]:
    (folder / "old.prototxt").write_text(text)
    code = main(["upgrade-solver", str(folder / "old.prototxt"), str(folder / "new.prototxt"), *options])
    return code, read_text(folder / "new.prototxt", caffe_pb2.SolverParameter).message


def test_upgrade_solver_of_the_old_enum_names_the_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, solver = run(tmp_path, OLD)
    expected = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" type: "AdaGrad"'
    assert (code, solver) == (0, parse_text(expected, caffe_pb2.SolverParameter).message)
    assert capsys.readouterr().out.splitlines() == [
        f'{tmp_path}/old.prototxt: solver_type is read as type: "AdaGrad"',
        f"wrote {tmp_path}/new.prototxt",
    ]


def test_upgrade_solver_of_today_writes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'base_lr: 0.01 dtrain_param { ema_decay: 0.5 } snapshot_prefix: "a/b"'
    assert run(tmp_path, text) == (0, parse_text(text, caffe_pb2.SolverParameter).message)
    assert "old.prototxt: nothing is old" in capsys.readouterr().out


def test_upgrade_solver_upgrades_the_nets_inside(tmp_path: Path) -> None:
    _, solver = run(tmp_path, WITH_NETS)
    expected = """base_lr: 0.01 type: "SGD"
        net_param { name: "n" layer { name: "a" type: "ReLU" bottom: "x" top: "y" } }
        test_net_param { layer { name: "a" type: "ReLU" } } test_net_param { layer { name: "a" type: "ReLU" } }"""
    assert solver == parse_text(expected, caffe_pb2.SolverParameter).message


def test_upgrade_solver_names_the_line_of_a_net_s_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.prototxt"
    path.write_text(WITH_NETS.replace('"relu"', '"rely"'))
    assert main(["upgrade-solver", str(path), str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith(f'{path}:3: layer "a": unknown type "rely" of 2013 (V0)')
    assert not (tmp_path / "new").exists()


def test_upgrade_solver_with_strip_takes_out_every_extension(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'dtrain_param { ema_decay: 0.5 } net_param { layer { name: "a" dtrain_param { shuffle: true } } }'
    _, solver = run(tmp_path, text, "--strip")
    assert solver == parse_text('net_param { layer { name: "a" } }', caffe_pb2.SolverParameter).message
    assert "2 dtrain_param taken out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('type: "SGD"\nsolver_type: SGD', "old.prototxt:2: give type or solver_type, not both"),
        ('layer { name: "a" }', "old.prototxt: must describe a solver, got a net"),
    ],
)
def test_upgrade_solver_of_a_mistake_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    path = tmp_path / "old.prototxt"
    path.write_text(text)
    assert main(["upgrade-solver", str(path), str(tmp_path / "new")]) == 2
    assert problem in capsys.readouterr().err
