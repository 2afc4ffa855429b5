"""The public face: what it has, and that importing it costs little."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dtrain

ROOT = Path(__file__).resolve().parents[2]

PYCAFFE_NAMES = [
    *("Net", "SGDSolver", "get_solver", "layer_type_list", "solver_type_list"),
    *("set_mode_cpu", "set_random_seed", "TRAIN", "TEST"),
]


def test_dtrain_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == dtrain.__version__


def test_dtrain_all_is_pycaffes_names() -> None:
    assert sorted(dtrain.__all__) == sorted([*PYCAFFE_NAMES, "__version__"])
    assert set(dtrain.__all__) <= set(dir(dtrain))


@pytest.mark.parametrize("name", PYCAFFE_NAMES)
def test_dtrain_name_is_the_one_of_core_pycaffe(name: str) -> None:
    from dtrain.core import pycaffe

    assert getattr(dtrain, name) is getattr(pycaffe, name)


def test_dtrain_unknown_name_raises_attribute_error_with_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Nett'; it has Net, "):
        _ = dtrain.Nett  # type: ignore[attr-defined]


def test_dtrain_import_loads_no_heavy_module() -> None:
    code = "import dtrain, sys; print({'numpy', 'google', 'lmdb', 'dtrain.core.pycaffe'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "set()"


def test_dtrain_parts_are_loaded_when_asked_for() -> None:
    code = "import dtrain; print(dtrain.proto.__name__, dtrain.core.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["dtrain.proto", "dtrain.core"]
