"""The public face: what it has, and that importing it costs little."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dtrain
from dtrain.core import pycaffe

ROOT = Path(__file__).resolve().parents[2]

PYCAFFE_NAMES = [
    *(
        "AdaDeltaSolver",
        "AdaGradSolver",
        "AdamSolver",
        "Layer",
        "NCCL",
        "NesterovSolver",
        "Net",
        "RMSPropSolver",
    ),
    *(
        "SGDSolver",
        "Solver",
        "TEST",
        "TRAIN",
        "Timer",
        "get_solver",
        "has_nccl",
        "init_log",
        "layer_type_list",
    ),
    *("log", "set_device", "set_mode_cpu", "set_mode_gpu", "set_multiprocess", "set_random_seed"),
    *("set_solver_count", "set_solver_rank", "solver_count", "solver_rank"),
]
OWN_NAMES = ["__version__", "install_as_caffe", "solver_type_list"]


def test_dtrain_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == dtrain.__version__


def test_dtrain_all_is_pycaffes_names_and_a_few_of_its_own() -> None:
    assert sorted(dtrain.__all__) == sorted([*PYCAFFE_NAMES, *OWN_NAMES])
    assert set(dtrain.__all__) <= set(dir(dtrain))


@pytest.mark.parametrize("name", dtrain.__all__)
def test_dtrain_name_is_there_and_the_same_each_time(name: str) -> None:
    assert getattr(dtrain, name) is getattr(dtrain, name)


def test_dtrain_names_are_those_of_core_pycaffe() -> None:
    theirs = {name for name in PYCAFFE_NAMES if hasattr(pycaffe, name)}
    assert theirs == {*PYCAFFE_NAMES} - {"Layer", "init_log", "log"}
    assert all(getattr(dtrain, name) is getattr(pycaffe, name) for name in theirs)
    assert dtrain.pycaffe is pycaffe


def test_dtrain_unknown_name_raises_attribute_error_with_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Nett'; it has AdaDeltaSolver, "):
        _ = dtrain.Nett  # type: ignore[attr-defined]


def test_dtrain_import_loads_no_heavy_module() -> None:
    code = "import dtrain, sys; print({'numpy', 'google', 'lmdb', 'dtrain.core.pycaffe'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "set()"


def test_dtrain_parts_are_loaded_when_asked_for() -> None:
    code = "import dtrain; print(dtrain.proto.__name__, dtrain.core.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["dtrain.proto", "dtrain.core"]


def run_script(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_dtrain_proto_brings_its_messages_along_as_pycaffes_does() -> None:
    run = run_script("import dtrain as caffe; print(caffe.proto.caffe_pb2.TEST)")
    assert run.stdout == "1\n", run.stderr


def test_dtrain_after_another_caffes_messages_says_that_one_must_go(tmp_path: Path) -> None:
    (tmp_path / "their_pb2.py").write_text("")
    run = run_script(
        f"import sys; sys.path.append({str(tmp_path)!r}); import their_pb2\n"
        "sys.modules['caffe.proto.caffe_pb2'] = their_pb2\n"
        "import dtrain; dtrain.Net"
    )
    assert f"dtrain can't be used after {tmp_path}/their_pb2.py has been imported" in run.stderr


def test_dtrain_in_a_script_shows_its_log_as_pycaffe_does(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('input: "x" input_dim: [1, 1, 1, 1]')
    code = f"import dtrain as caffe; caffe.Net('{tmp_path}/net.prototxt', caffe.TEST); caffe.log('hello')"
    lines = run_script(code).stderr.splitlines()
    assert lines[-1].endswith("<string>:1] hello")
    assert len(lines) > 1
    assert run_script(f"import os; os.environ['GLOG_minloglevel'] = '2'; {code}").stderr == ""
