"""The public face: pycaffe's names, each loaded when it is first asked for.

``import dtrain as caffe`` runs pycaffe's scripts; importing one part costs that part. The sources stand in
the folders core, data, dist and launcher, which the links in this folder bring in as ``dtrain.core`` and so
on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtrain.core.pycaffe import TEST as TEST
    from dtrain.core.pycaffe import TRAIN as TRAIN
    from dtrain.core.pycaffe import Net as Net
    from dtrain.core.pycaffe import SGDSolver as SGDSolver
    from dtrain.core.pycaffe import get_solver as get_solver
    from dtrain.core.pycaffe import layer_type_list as layer_type_list
    from dtrain.core.pycaffe import set_mode_cpu as set_mode_cpu
    from dtrain.core.pycaffe import set_random_seed as set_random_seed
    from dtrain.core.pycaffe import solver_type_list as solver_type_list

__version__ = "0.1.0"

# name → the module that has it
_FACE = dict.fromkeys(
    (
        "Net",
        "SGDSolver",
        "TEST",
        "TRAIN",
        "get_solver",
        "layer_type_list",
        "set_mode_cpu",
        "set_random_seed",
        "solver_type_list",
    ),
    "dtrain.core.pycaffe",
)
_PARTS = ("core", "data", "dist", "launcher", "proto")

__all__ = sorted([*_FACE, "__version__"])  # noqa: PLE0605 (computed from the table above)


def __getattr__(name: str) -> Any:
    """Load the module that has `name`, remember the name here and return what it stands for."""
    if name in _FACE:
        value = getattr(importlib.import_module(_FACE[name]), name)
    elif name in _PARTS:
        value = importlib.import_module(f"dtrain.{name}")
    else:
        raise AttributeError(f"module 'dtrain' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACE, *_PARTS})
