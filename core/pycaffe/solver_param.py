"""The fields of a solver as pycaffe's `solver.param` shows them."""

from __future__ import annotations

from typing import Any

from dtrain.proto import caffe_pb2


class SolverParam:
    """All fields of a SolverParameter, to be read; base_lr may be set too, as in pycaffe."""

    __slots__ = ("_message",)

    def __init__(self, message: caffe_pb2.SolverParameter) -> None:
        object.__setattr__(self, "_message", message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "base_lr":
            raise AttributeError(
                f"solver.param.{name} can't be set, as the solver is built already; only base_lr can"
            )
        self._message.base_lr = value

    def __dir__(self) -> list[str]:
        return [field.name for field in self._message.DESCRIPTOR.fields]

    def __repr__(self) -> str:
        return str(self._message)
