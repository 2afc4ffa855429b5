"""The oneDNN engine: operations by oneDNN where it has fast code for them, by the reference engine where not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from dtrain.core.engines import operations as op
from dtrain.core.engines.engine import ENGINES, Engine
from dtrain.core.engines.onednn.activation import Activation
from dtrain.core.engines.onednn.batch_norm import BatchNorm
from dtrain.core.engines.onednn.binding import Array, Binding, make_array
from dtrain.core.engines.onednn.concat import Concat
from dtrain.core.engines.onednn.convolution import Convolution
from dtrain.core.engines.onednn.eltwise import create_eltwise
from dtrain.core.engines.onednn.inner_product import InnerProduct
from dtrain.core.engines.onednn.layouts import Layouts
from dtrain.core.engines.onednn.library import load_library
from dtrain.core.engines.onednn.lrn import LRN
from dtrain.core.engines.onednn.pooling import Pooling
from dtrain.core.engines.onednn.softmax import Softmax
from dtrain.core.engines.reference.engine import ReferenceEngine, num_blas_threads
from dtrain.core.tensor import HOST, Memory


@ENGINES.register("onednn")
class OneDnnEngine(Engine):
    """Carry out operations by oneDNN on float32 blobs. Raises UserError where oneDNN is missing or can't be used.

    Layers that compute on arrays themselves find them on the host. Processes must not fork once it has run.
    """

    name: ClassVar[str] = "onednn"
    memory: Memory = HOST
    xp: Any = np
    operations: Mapping[type, Callable[[Any, Any], Any]] = {
        op.ActivationSpec: Activation,
        op.BatchNormSpec: BatchNorm,
        op.ConcatSpec: Concat,
        op.ConvolutionSpec: Convolution,
        op.EltwiseSpec: create_eltwise,
        op.InnerProductSpec: InnerProduct,
        op.LRNSpec: LRN,
        op.PoolingSpec: Pooling,
        op.SoftmaxSpec: Softmax,
    }

    def __init__(self) -> None:
        super().__init__()
        self.fallback: Engine = ReferenceEngine()
        self.binding = _bind()
        self.layouts = Layouts(self.binding)
        self._lent = threading.local()

    def create(self, spec: Any) -> Any:
        """Return the object that carries out `spec`; of a batch without values the reference engine takes care."""
        is_empty = any(0 in shape for shape in _shapes(spec))
        return self.fallback.create(spec) if is_empty else super().create(spec)

    def lend(self, purpose: str, num_bytes: int) -> Array:
        """Return memory for values that are used up at once: one growing array per purpose and thread."""
        mine: dict[str, Array] = self._lent.__dict__
        if purpose not in mine or mine[purpose].nbytes < num_bytes:
            mine[purpose] = make_array(num_bytes)
        return mine[purpose]

    def describe(self) -> str:
        """Return oneDNN's version, what its threads are and how many it may use."""
        library, given = self.binding.library, os.environ.get("OMP_NUM_THREADS", "")
        count = int(given) if given.isdigit() else num_blas_threads()
        threads = f"{count} {library.runtime} thread{'s' * (count > 1)}"
        return f"{self.name}: oneDNN {library.version}, {threads}; what it lacks: {self.fallback.describe()}"


@cache
def _bind() -> Binding:
    return Binding(load_library(os.environ))


def _shapes(spec: Any) -> list[op.Shape]:
    """Return the shapes that a spec names."""
    if isinstance(spec, op.InnerProductSpec):
        return [(spec.num_rows, spec.num_inputs, spec.num_outputs)]
    if isinstance(spec, op.ConcatSpec):
        return list(spec.x_shapes)
    shape: op.Shape = spec.shape if isinstance(spec, op.EltwiseSpec) else spec.x_shape
    return [shape, getattr(spec, "y_shape", shape)]
