"""The public face: pycaffe's names, each loaded when it is first asked for.

``import dtrain as caffe`` runs pycaffe's scripts; importing one part costs that part. The sources stand in
the folders core, data, dist and launcher, which the links in this folder bring in as ``dtrain.core`` and so
on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtrain.core.pycaffe import NCCL as NCCL
    from dtrain.core.pycaffe import TEST as TEST
    from dtrain.core.pycaffe import TRAIN as TRAIN
    from dtrain.core.pycaffe import AdaDeltaSolver as AdaDeltaSolver
    from dtrain.core.pycaffe import AdaGradSolver as AdaGradSolver
    from dtrain.core.pycaffe import AdamSolver as AdamSolver
    from dtrain.core.pycaffe import NesterovSolver as NesterovSolver
    from dtrain.core.pycaffe import Net as Net
    from dtrain.core.pycaffe import RMSPropSolver as RMSPropSolver
    from dtrain.core.pycaffe import SGDSolver as SGDSolver
    from dtrain.core.pycaffe import Solver as Solver
    from dtrain.core.pycaffe import Timer as Timer
    from dtrain.core.pycaffe import get_solver as get_solver
    from dtrain.core.pycaffe import has_nccl as has_nccl
    from dtrain.core.pycaffe import layer_type_list as layer_type_list
    from dtrain.core.pycaffe import set_device as set_device
    from dtrain.core.pycaffe import set_mode_cpu as set_mode_cpu
    from dtrain.core.pycaffe import set_mode_gpu as set_mode_gpu
    from dtrain.core.pycaffe import set_multiprocess as set_multiprocess
    from dtrain.core.pycaffe import set_random_seed as set_random_seed
    from dtrain.core.pycaffe import set_solver_count as set_solver_count
    from dtrain.core.pycaffe import set_solver_rank as set_solver_rank
    from dtrain.core.pycaffe import solver_count as solver_count
    from dtrain.core.pycaffe import solver_rank as solver_rank
    from dtrain.core.pycaffe import solver_type_list as solver_type_list
    from dtrain.core.python_layers.base import Layer as Layer
    from dtrain.core.python_layers.caffe_alias import install_as_caffe as install_as_caffe
    from dtrain.launcher.script_log import init_log as init_log
    from dtrain.launcher.script_log import log as log

__version__ = "0.1.0"

# module → its names here
_FACE = {
    "dtrain.core.pycaffe": (
        *("AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "NCCL", "NesterovSolver", "Net"),
        *("RMSPropSolver", "SGDSolver", "Solver", "TEST", "TRAIN", "Timer", "get_solver", "has_nccl"),
        *("layer_type_list", "set_device", "set_mode_cpu", "set_mode_gpu", "set_multiprocess"),
        *("set_random_seed", "set_solver_count", "set_solver_rank", "solver_count", "solver_rank"),
        "solver_type_list",
    ),
    "dtrain.core.python_layers.base": ("Layer",),
    "dtrain.core.python_layers.caffe_alias": ("install_as_caffe",),
    "dtrain.launcher.script_log": ("init_log", "log"),
}
_HOMES = {name: module for module, names in _FACE.items() for name in names}
_PARTS = {name: f"dtrain.{name}" for name in ("core", "data", "dist", "launcher", "proto")}
_PARTS["pycaffe"] = "dtrain.core.pycaffe"  # where pycaffe has it

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605 (computed from the table above)


def __getattr__(name: str) -> Any:
    """Load the module that has `name`, remember the name here and return what it stands for."""
    if name in _HOMES:
        value = getattr(_load(_HOMES[name]), name)
    elif name in _PARTS:
        value = _load(_PARTS[name])
    else:
        raise AttributeError(f"module 'dtrain' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def _load(module: str) -> Any:
    """Import `module` as pycaffe's users expect it: caffe.proto with its messages, nets with a log."""
    if module in ("dtrain.core.pycaffe", "dtrain.proto"):
        alias = importlib.import_module("dtrain.core.python_layers.caffe_alias")
        alias.check_messages_are_free()
        importlib.import_module("dtrain.proto.caffe_pb2")
    if module == "dtrain.core.pycaffe":
        importlib.import_module("dtrain.launcher.script_log").show_log()
    return importlib.import_module(module)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PARTS})
