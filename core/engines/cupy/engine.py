"""The cupy engine: the reference engine's code, on arrays in the memory of a GPU."""

from __future__ import annotations

from typing import Any, ClassVar

from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import ENGINES
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.errors import UserError
from dtrain.dist.cupy_library import load_cupy
from dtrain.dist.errors import LaunchError


@ENGINES.register("cupy")
class CupyEngine(ReferenceEngine):
    """Carry out every operation by cupy on the current GPU, and let layers write with it what no operation covers.

    Raises UserError where cupy, its driver or a GPU is missing.
    """

    name: ClassVar[str] = "cupy"

    def __init__(self, precision: str = "FLOAT32") -> None:
        super().__init__(precision)
        try:
            self.xp: Any = load_cupy()
        except LaunchError as error:
            raise UserError(f"engine {self.name}: {error}") from error
        self.memory = DeviceMemory(self.xp)
