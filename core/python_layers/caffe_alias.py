"""Let `import caffe` mean dtrain, for layers and scripts that were written for pycaffe.

`import caffe`, `from caffe.proto import caffe_pb2` and the like then give dtrain's own modules, not copies. Only
where no other caffe is installed: its messages and dtrain's have the same names, and protobuf holds one of a
name in a process.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType

from dtrain.core.errors import UserError

_NAME = "caffe"
_FACE = __name__.partition(".")[0]  # dtrain
_MOVED = {"pycaffe": "core.pycaffe"}  # modules of pycaffe that dtrain has at another place


def install_as_caffe() -> None:
    """Let `import caffe` mean dtrain in this process from now on; a second call does nothing.

    Raises UserError if another caffe is installed or imported already.
    """
    other = find_other_caffe()
    if other is not None:
        raise UserError(
            f"caffe must be dtrain in this process, but {other} is another one; take its folder off sys.path "
            f"(PYTHONPATH), or import {_FACE} as caffe in a process that does not import it"
        )
    sys.modules[_NAME] = sys.modules[_FACE]
    if not any(isinstance(finder, _SubmoduleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _SubmoduleFinder())


def find_other_caffe() -> str | None:
    """Return the file of a caffe that is not dtrain and that `import caffe` gives or would give, or None."""
    loaded = sys.modules.get(_NAME)
    if loaded is not None:
        return None if loaded is sys.modules[_FACE] else str(getattr(loaded, "__file__", None) or _NAME)
    spec = find_spec(_NAME)
    return spec.origin if spec is not None else None  # a mere folder called caffe has no origin


def check_messages_are_free() -> None:
    """Raise UserError if another caffe's messages are loaded, so that dtrain's can't be."""
    theirs = sys.modules.get(f"{_NAME}.proto.caffe_pb2")
    if theirs is not None and theirs is not sys.modules.get(f"{_FACE}.proto.caffe_pb2"):
        raise UserError(
            f"{_FACE} can't be used after {theirs.__file__} has been imported, since both define Caffe's "
            f"messages; import one of the two in a process"
        )


class _SubmoduleFinder(MetaPathFinder):
    """Answers for caffe.proto, caffe.proto.caffe_pb2 …, of which the path would find second copies."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, inside = fullname.partition(".")
        if package != _NAME or not inside:
            return None
        own_name = f"{_FACE}.{_MOVED.get(inside, inside)}"
        try:
            found = find_spec(own_name)
        except ModuleNotFoundError:
            found = None
        return spec_from_loader(fullname, _AliasLoader(own_name)) if found is not None else None


class _AliasLoader(Loader):
    """Puts a module of dtrain into sys.modules under a second name."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None, "a module that is being imported has a spec"
        sys.modules[module.__spec__.name] = importlib.import_module(self._own_name)
