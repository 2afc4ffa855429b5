from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.python_layers.loading import find_class, import_module, make_layer
from dtrain.proto import caffe_pb2
from tests.core.conftest import WriteModule

LAYERS = """
import caffe

class Twice(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): pass
    def forward(self, bottom, top): pass

class Halved(Twice):
    def __init__(self, param):
        raise ValueError("not today")

class Unfinished(caffe.Layer):
    def forward(self, bottom, top): pass

class Other:
    pass

number = 3
"""


def param(module: str, layer: str) -> caffe_pb2.LayerParameter:
    return caffe_pb2.LayerParameter(python_param=caffe_pb2.PythonParameter(module=module, layer=layer))


def problem_of(module: str, layer: str, net_path: str = "net.prototxt") -> str:
    with pytest.raises(UserError) as caught:
        make_layer(param(module, layer), net_path)
    return str(caught.value)


def test_make_layer_gives_an_instance_of_the_named_class(write_module: WriteModule) -> None:
    write_module("doubling", LAYERS)
    layer = make_layer(param("doubling", "Twice"), "net.prototxt")
    assert type(layer) is sys.modules["doubling"].Twice


@pytest.mark.parametrize("folder", ["", "nets"])
def test_import_module_looks_in_the_working_directory_and_beside_the_net(
    write_module: WriteModule, folder: str
) -> None:
    path = write_module("doubling", LAYERS)
    os.makedirs("nets")
    os.makedirs("elsewhere")
    path.rename(path.parent / folder / path.name)
    os.chdir("elsewhere" if folder else ".")
    net_path = "../nets/net.prototxt" if folder else "nets/net.prototxt"
    assert import_module("doubling", net_path).number == 3


def test_import_module_prefers_what_is_on_the_path(write_module: WriteModule) -> None:
    path = write_module("doubling", "number = 4")
    os.makedirs("first")
    Path("first/doubling.py").write_text("number = 5")
    sys.path.insert(0, str(path.parent / "first"))
    assert import_module("doubling", str(path.parent / "net.prototxt")).number == 5


def test_import_module_takes_modules_of_packages(write_module: WriteModule) -> None:
    path = write_module("doubling", LAYERS)
    os.makedirs("rpn")
    Path("rpn/__init__.py").write_text("")
    path.rename(path.parent / "rpn" / path.name)
    assert import_module("rpn.doubling", "net.prototxt").number == 3


@pytest.mark.parametrize("module", ["dubling", "rpn.dubling"])
def test_make_layer_of_a_module_that_is_nowhere_names_the_places(
    write_module: WriteModule, module: str, caplog: pytest.LogCaptureFixture
) -> None:
    problem = problem_of(module, "Twice")
    assert problem.startswith(
        f"python_param.module must name a Python module, but {module} is nowhere on sys.path"
    )
    assert problem.endswith(", ".join(folder or "." for folder in sys.path))
    assert os.getcwd() in problem
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_make_layer_of_a_module_whose_code_fails_says_where(
    write_module: WriteModule, text: str, problem: str
) -> None:
    path = write_module("doubling", f"\n{text}\n")
    assert problem_of("doubling", "Twice") == f"importing module doubling raised {problem} ({path}:2)"


def test_make_layer_of_a_module_that_is_no_python_says_so(write_module: WriteModule) -> None:
    write_module("doubling", "class Twice(:\n")
    assert problem_of("doubling", "Twice").startswith("importing module doubling raised SyntaxError: ")


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (
            "Twise",
            ' has no class "Twise"; did you mean "Twice"?; its classes: Twice, Halved, Unfinished, Other',
        ),
        ("Other", ": Other must be a class derived from caffe.Layer"),
        ("number", ": number must be a class derived from caffe.Layer"),
        (
            "Unfinished",
            ": class Unfinished must define setup, reshape, forward, got no setup, reshape",
        ),
    ],
)
def test_make_layer_of_a_class_that_is_none_says_so(
    write_module: WriteModule, layer: str, problem: str
) -> None:
    path = write_module("doubling", LAYERS)
    assert problem_of("doubling", layer) == f"module doubling ({path}){problem}"


def test_make_layer_whose_init_fails_says_where(write_module: WriteModule) -> None:
    path = write_module("doubling", LAYERS)
    line = LAYERS.splitlines().index('        raise ValueError("not today")') + 1
    assert problem_of("doubling", "Halved") == f"making a Halved raised ValueError: not today ({path}:{line})"


@pytest.mark.parametrize(
    ("module", "layer", "field"), [("", "Twice", "module"), ("doubling", "", "layer"), ("", "", "module")]
)
def test_make_layer_without_module_or_layer_asks_for_it(module: str, layer: str, field: str) -> None:
    assert problem_of(module, layer) == f"python_param.{field} must be given, got none"


def test_make_layer_where_another_caffe_is_installed_names_it(write_module: WriteModule) -> None:
    """A layer that imports it is no layer of dtrain's, whether that import works or clashes."""
    other = write_module("caffe", "class Layer: pass\n")
    sys.path.insert(0, str(other.parent))
    write_module("doubling", LAYERS)
    hint = f"(import caffe gives {other}, not dtrain; take its folder off PYTHONPATH)"
    assert problem_of("doubling", "Twice").endswith(f"must be a class derived from caffe.Layer {hint}")
    other.write_text("raise TypeError('duplicate symbol')\n")
    del sys.modules["caffe"], sys.modules["doubling"]
    assert problem_of("doubling", "Twice").endswith(f"raised TypeError: duplicate symbol ({other}:1) {hint}")


def test_find_class_of_a_module_without_a_file_says_built_in() -> None:
    with pytest.raises(
        UserError, match=r"^module sys \(built in\) has no class \"Layer\"; its classes: none$"
    ):
        find_class(sys, "Layer")
