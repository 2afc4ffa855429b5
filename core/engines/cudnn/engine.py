"""The cuDNN engine: convolutions and normalisations by cuDNN, what is left by kernels and the engine cupy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from dtrain.core.engines import operations as op
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.activation import Activation
from dtrain.core.engines.cudnn.batch_norm import BatchNorm, FusedBatchNorm
from dtrain.core.engines.cudnn.binding import Binding
from dtrain.core.engines.cudnn.concat import Concat
from dtrain.core.engines.cudnn.convolution import Convolution
from dtrain.core.engines.cudnn.eltwise import EltwiseSum, FusedSum
from dtrain.core.engines.cudnn.fused import FusedWeighted
from dtrain.core.engines.cudnn.inner_product import InnerProduct
from dtrain.core.engines.cudnn.library import load_library
from dtrain.core.engines.cudnn.lrn import LRN
from dtrain.core.engines.cudnn.memory import Memories
from dtrain.core.engines.cudnn.pooling import Pooling
from dtrain.core.engines.cudnn.softmax import Softmax
from dtrain.core.engines.cupy.engine import CupyEngine
from dtrain.core.engines.cupy.kernels import Kernel
from dtrain.core.engines.cupy.matrix import Matrices
from dtrain.core.engines.cupy.running_sums import RunningSums
from dtrain.core.engines.cupy.softmax_loss import SoftmaxLoss
from dtrain.core.engines.engine import ENGINES, Engine, Promises
from dtrain.core.errors import UserError

HALVES = {"BF16": np.dtype(ml_dtypes.bfloat16), "FLOAT16": np.dtype(np.float16)}
BF16_SINCE = 8  # the first compute capability that multiplies bf16
ALLOWS_TF32 = True
WORKSPACE_BYTES = 1 << 30


@ENGINES.register("cudnn")
class CudnnEngine(Engine):
    """Carry out operations by cuDNN on float32 blobs. Raises UserError where cupy, a GPU or cuDNN is missing.

    In precision BF16 or FLOAT16 what a convolution gives stays in 16 bits, with channels last, until somebody wants
    it plain, and operations that take values as they come work on those too. Sums and statistics are float32, and so
    are params, of which rounded copies are read, and their gradients.

    Arguments:
        allows_tf32: what is multiplied in float32 may be rounded to TF32, of 11 bits. None: ALLOWS_TF32.
        is_deterministic: results are the same bits in each run; algorithms are not chosen by measurement then.
        workspace_bytes: what a convolution's algorithm may want; at most a tenth of the GPU's memory.
    """

    name: ClassVar[str] = "cudnn"
    precisions: ClassVar[tuple[str, ...]] = ("FLOAT32", *HALVES)
    operations: Mapping[type, Callable[[Any, Any], Any]] = {
        op.ActivationSpec: Activation,
        op.BatchNormSpec: BatchNorm,
        op.ConcatSpec: Concat,
        op.ConvolutionSpec: Convolution,
        op.EltwiseSpec: EltwiseSum,
        op.FusedBatchNormSpec: FusedBatchNorm,
        op.FusedSumSpec: FusedSum,
        op.FusedWeightedSpec: FusedWeighted,
        op.InnerProductSpec: InnerProduct,
        op.LRNSpec: LRN,
        op.PoolingSpec: Pooling,
        op.RunningSumsSpec: RunningSums,
        op.SoftmaxLossSpec: SoftmaxLoss,
        op.SoftmaxSpec: Softmax,
    }

    def __init__(
        self,
        precision: str = "FLOAT32",
        *,
        allows_tf32: bool | None = None,
        is_deterministic: bool = False,
        workspace_bytes: int = WORKSPACE_BYTES,
    ) -> None:
        super().__init__(precision)
        fallback = CupyEngine()
        self.fallback = fallback
        self.xp: Any = fallback.xp
        self.binding = Binding(load_library(), self.xp)
        properties = self.xp.cuda.runtime.getDeviceProperties(self.binding.device)
        self._device_name = properties["name"].decode()
        if precision == "BF16" and properties["major"] < BF16_SINCE:
            raise UserError(
                f"engine cudnn: precision BF16 needs a GPU of compute capability {BF16_SINCE}.0 or later, got"
                f" {self._device_name} of {properties['major']}.{properties['minor']}; use FLOAT16 or FLOAT32"
            )
        half = HALVES.get(precision)
        self.memories = Memories(self.xp, half)
        self.memory = self.memories.plain
        if allows_tf32 is None:
            allows_tf32 = ALLOWS_TF32
        self.math_type = dnn.DEFAULT_MATH if allows_tf32 else dnn.EXACT_MATH
        self.matrices = Matrices(fallback.cublas, allows_tf32)
        if half is not None:
            self.math_type = dnn.TENSOR_MATH
        self.is_deterministic = is_deterministic
        self.workspace_bytes = min(workspace_bytes, properties["totalGlobalMem"] // 10)
        self.no_numbers = self.xp.zeros(1, np.float32)  # for a parameter of a kernel that is not looked at
        self.has_half_activations: bool | None = None  # None: not tried yet
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._lent = threading.local()

    @classmethod
    def promising(cls, precision: str, promises: Promises) -> CudnnEngine:
        """Return one that keeps `promises`."""
        return cls(
            precision,
            allows_tf32=False if promises.strict_float32 else None,
            is_deterministic=promises.deterministic,
        )

    @property
    def replays(self) -> Any:
        """As CupyEngine has it, which draws the random numbers."""
        drawing: Any = self.fallback
        return drawing.replays

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """As CupyEngine has it, in strict float32."""
        assert self.fallback is not None
        return self.fallback.matmul(a, b, out)

    def sum_squares(self, x: Any) -> Any:
        """As CupyEngine has it."""
        assert self.fallback is not None
        return self.fallback.sum_squares(x)

    def kernel(self, name: str, source: str, **macros: str) -> Kernel:
        """Return a kernel of our own, the same one each time."""
        assert "double" not in macros.values(), "engine cudnn computes in float32"
        key = name, *macros.values()
        if key not in self._kernels:
            self._kernels[key] = Kernel(self.xp, name, source, **macros)
        return self._kernels[key]

    def lend(self, num_bytes: int) -> Any:
        """Return a workspace of at least so many bytes: one growing array per thread, for what runs next."""
        mine: dict[str, Any] = self._lent.__dict__
        if "workspace" not in mine or mine["workspace"].nbytes < num_bytes:
            mine.pop("workspace", None)
            mine["workspace"] = self.xp.empty(max(num_bytes, 1), np.uint8)
        return mine["workspace"]

    def scratch(self) -> Any:
        """Return the workspace that is lent now."""
        return self.lend(0)

    def tell_of_float32(self, kind: str) -> None:
        """Say once that what was to be computed in 16 bits is not."""
        self.tell_once(f"engine {self.name} has no {kind} in {self.precision}; that is computed in float32")

    def looks_at_values(self) -> bool:
        """As CupyEngine has it."""
        assert self.fallback is not None
        return self.fallback.looks_at_values()

    def synchronize(self) -> None:
        """As CupyEngine has it."""
        assert self.fallback is not None
        self.fallback.synchronize()

    def describe(self) -> str:
        """Return cuDNN's version, the GPU, and what is computed in."""
        values = self.precision
        if values == "FLOAT32" and self.math_type == dnn.DEFAULT_MATH:
            values = "FLOAT32 (products in TF32)"
        if self.is_deterministic:
            values += ", deterministic"
        text = f"{self.name}: cuDNN {self.binding.library.version}, {self._device_name}, {values}"
        assert self.fallback is not None
        return f"{text}; what it lacks: {self.fallback.describe()}"
