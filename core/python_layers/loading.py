"""Find the class that a prototxt's python_param names, and make a layer of it.

The module is looked for where Python looks (sys.path, PYTHONPATH), then in the folder of the net's file and in the
working directory. While it is imported, `import caffe` means dtrain, unless another caffe is installed.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from dtrain.core.errors import UserError
from dtrain.core.names import nearest
from dtrain.core.python_layers.base import Layer
from dtrain.core.python_layers.caffe_alias import find_other_caffe, install_as_caffe
from dtrain.core.python_layers.failures import UsersCode
from dtrain.proto import caffe_pb2

_METHODS = ("setup", "reshape", "forward")  # backward is asked for where a gradient is


def make_layer(param: caffe_pb2.LayerParameter, net_path: str) -> Layer:
    """Return a new instance of the class that `param` names, not set up.

    Arguments:
        net_path: the net's file.
    Raises UserError if there is no such module or class, if it is no layer, or if its own code fails.
    """
    python = param.python_param
    for field in ("module", "layer"):
        if not getattr(python, field):
            raise UserError(f"python_param.{field} must be given, got none")
    found = find_class(import_module(python.module, net_path), python.layer)
    with UsersCode(f"making a {python.layer}", found):
        return found(param)


def import_module(name: str, net_path: str) -> ModuleType:
    """Import the module called `name`. Raises UserError if there is none or if its own code fails."""
    if find_other_caffe() is None:
        install_as_caffe()
    _add_to_path(os.path.dirname(os.path.abspath(net_path)), os.getcwd())
    importlib.invalidate_caches()  # the file may have been written just now
    with UsersCode(f"importing module {name}", None, _hint_of_other_caffe()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not _is_missing(error, name):
                raise
    raise UserError(_describe_missing(name))


def find_class(module: ModuleType, name: str) -> type[Layer]:
    """Return the class called `name`. Raises UserError if there is none, or if it is no complete layer."""
    where = f"module {module.__name__} ({getattr(module, '__file__', 'built in')})"
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and key[0] != "_"]
        hint = nearest(name, classes)
        raise UserError(
            f'{where} has no class "{name}"{"; " + hint if hint else ""}; its classes: '
            f"{', '.join(classes) or 'none'}"
        )
    found = getattr(module, name)
    if not (isinstance(found, type) and issubclass(found, Layer)):
        raise UserError(f"{where}: {name} must be a class derived from caffe.Layer{_hint_of_other_caffe()}")
    missing = [
        method for method in _METHODS if getattr(found, method, None) in (None, vars(Layer).get(method))
    ]
    if missing:
        raise UserError(
            f"{where}: class {name} must define {', '.join(_METHODS)}, got no {', '.join(missing)}"
        )
    return found


def _add_to_path(*folders: str) -> None:
    sys.path += [folder for folder in dict.fromkeys(folders) if folder not in sys.path]


def _is_missing(error: ModuleNotFoundError, name: str) -> bool:
    """Return whether the module itself, or a package that it is in, was not found: none that it imports."""
    return f"{name}.".startswith(f"{error.name}.")


def _describe_missing(name: str) -> str:
    places = ", ".join(folder or "." for folder in sys.path)
    return (
        f"python_param.module must name a Python module, but {name} is nowhere on sys.path; put its folder on "
        f"PYTHONPATH or the file beside the net; looked in: {places}"
    )


def _hint_of_other_caffe() -> str:
    other = find_other_caffe()
    if other is None:
        return ""
    return f" (import caffe gives {other}, not dtrain; take its folder off PYTHONPATH)"
