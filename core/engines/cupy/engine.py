"""The cupy engine: the reference engine's code, on arrays in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

from dtrain.core.engines import operations as op
from dtrain.core.engines.cupy.cublas import Cublas
from dtrain.core.engines.cupy.devices import name_current, open_cupy
from dtrain.core.engines.cupy.dropout import Dropout
from dtrain.core.engines.cupy.matrix import Matrices
from dtrain.core.engines.cupy.memory import device_memory
from dtrain.core.engines.cupy.row_sums import RowSums
from dtrain.core.engines.cupy.running_sums import RunningSums
from dtrain.core.engines.cupy.softmax_loss import SoftmaxLoss
from dtrain.core.engines.engine import ENGINES, Engine
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.errors import UserError


@ENGINES.register("cupy")
class CupyEngine(ReferenceEngine):
    """Carry out every operation by cupy on the current GPU, and let layers write with it what no operation covers.

    Products of matrices are cuBLAS's. Raises UserError where cupy, its driver, cuBLAS or a GPU is missing.
    """

    name: ClassVar[str] = "cupy"
    operations: Mapping[type, Callable[[Any, Engine], Any]] = {
        **ReferenceEngine.operations,
        op.DropoutSpec: Dropout,
        op.RowSumsSpec: RowSums,
        op.RunningSumsSpec: RunningSums,
        op.SoftmaxLossSpec: SoftmaxLoss,
    }

    def __init__(self, precision: str = "FLOAT32") -> None:
        super().__init__(precision)
        try:
            self.xp: Any = open_cupy()
            self.cublas = Cublas(self.xp)
        except UserError as error:
            raise UserError(f"engine {self.name}: {error}") from error
        self.memory = device_memory(self.xp)
        self._matrices = Matrices(self.cublas, allows_tf32=False)

    @cached_property
    def replays(self) -> Any:
        """How many passes a replayed graph is after the one that was captured, uint64 (1,) on the device.

        It is 0 unless whoever replays writes it, before each replay; random numbers in the graph depend on it.
        """
        return self.xp.zeros(1, "uint64")

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """As Engine has it, by cuBLAS, which cupy has too, but not in what is captured."""
        if out is None:
            out = self.xp.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
        self._matrices.multiply(a, b, out)
        return out

    def sum_squares(self, x: Any) -> Any:
        """As Engine has it, by a sum."""
        return (x * x).sum(axis=-1)

    def looks_at_values(self) -> bool:
        """Return whether the current stream is not being captured: to look at values is to wait for them."""
        return not self.xp.cuda.get_current_stream().is_capturing()

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.xp.cuda.get_current_stream().synchronize()

    def describe(self) -> str:
        """Return cupy's version and the GPU."""
        return f"{self.name}: cupy {self.xp.__version__}, {name_current(self.xp)}"
