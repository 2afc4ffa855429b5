from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dtrain
from dtrain.core import pycaffe
from dtrain.core.errors import UserError
from dtrain.core.python_layers.caffe_alias import (
    check_messages_are_free,
    find_other_caffe,
    install_as_caffe,
)
from dtrain.proto import caffe_pb2
from tests.core.conftest import WriteModule

ROOT = Path(__file__).resolve().parents[3]


def test_install_as_caffe_makes_caffe_another_name_of_dtrains_modules(write_module: WriteModule) -> None:
    install_as_caffe()
    install_as_caffe()
    names = {
        "caffe": dtrain,
        "caffe.proto": dtrain.proto,
        "caffe.proto.caffe_pb2": caffe_pb2,
        "caffe.pycaffe": pycaffe,
    }
    for name, module in names.items():
        assert importlib.import_module(name) is module
    assert sys.modules["caffe"].Net is pycaffe.Net
    assert len([finder for finder in sys.meta_path if "Submodule" in type(finder).__name__]) == 1


def test_install_as_caffe_after_a_script_has_named_dtrain_so_gives_no_second_copies(
    write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "caffe", dtrain)
    install_as_caffe()
    assert importlib.import_module("caffe.proto") is dtrain.proto


def test_install_as_caffe_leaves_unknown_modules_unknown(write_module: WriteModule) -> None:
    install_as_caffe()
    for name in ("caffe.no_such", "caffe.proto.no_such", "caffe.Net.no_such"):
        with pytest.raises(ModuleNotFoundError, match="No module named .caffe"):
            importlib.import_module(name)


def test_install_as_caffe_where_another_is_installed_refuses(write_module: WriteModule) -> None:
    other = write_module("caffe", "")
    sys.path.insert(0, str(other.parent))
    assert find_other_caffe() == str(other)
    with pytest.raises(UserError, match=f"but {other} is another one; take its folder off sys.path"):
        install_as_caffe()
    assert "caffe" not in sys.modules
    importlib.import_module("caffe")
    assert find_other_caffe() == str(other)


def test_find_other_caffe_takes_no_folder_for_a_module(write_module: WriteModule, tmp_path: Path) -> None:
    """Caffe's own source tree is often called caffe and lies in the working directory."""
    (tmp_path / "caffe").mkdir()
    sys.path.insert(0, str(tmp_path))
    assert find_other_caffe() is None
    install_as_caffe()
    assert importlib.import_module("caffe") is dtrain


def test_check_messages_are_free_after_another_caffes_names_it(
    write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_messages_are_free()
    monkeypatch.setitem(sys.modules, "caffe.proto.caffe_pb2", caffe_pb2)
    check_messages_are_free()
    other = write_module("other_pb2", "")
    sys.path.insert(0, str(other.parent))
    monkeypatch.setitem(sys.modules, "caffe.proto.caffe_pb2", importlib.import_module("other_pb2"))
    with pytest.raises(UserError, match=f"dtrain can't be used after {other} has been imported"):
        check_messages_are_free()


def test_install_as_caffe_loads_neither_numpy_nor_messages() -> None:
    code = "import dtrain, sys; dtrain.install_as_caffe(); print({'numpy', 'google'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "set()"
