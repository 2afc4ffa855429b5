"""The oneDNN engine: operations by oneDNN where it has fast code for them, by the reference engine where not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, TypeVar

import numpy as np

from dtrain.core.engines import operations as op
from dtrain.core.engines.engine import ENGINES, Engine, NotOffered, Step
from dtrain.core.engines.onednn.activation import Activation
from dtrain.core.engines.onednn.batch_norm import BatchNorm, FusedBatchNorm
from dtrain.core.engines.onednn.binding import BF16, FLOAT32, Array, Binding, make_array
from dtrain.core.engines.onednn.concat import Concat
from dtrain.core.engines.onednn.convolution import create_convolution
from dtrain.core.engines.onednn.eltwise import create_eltwise
from dtrain.core.engines.onednn.fused import FusedSum, FusedWeighted
from dtrain.core.engines.onednn.inner_product import create_inner_product
from dtrain.core.engines.onednn.layouts import Layouts
from dtrain.core.engines.onednn.library import NO_BF16, load_library
from dtrain.core.engines.onednn.lrn import LRN
from dtrain.core.engines.onednn.net_layouts import plan_layouts
from dtrain.core.engines.onednn.pooling import Pooling
from dtrain.core.engines.onednn.signal_stack import give_signals_a_stack
from dtrain.core.engines.onednn.softmax import Softmax
from dtrain.core.engines.reference.engine import ReferenceEngine, num_blas_threads
from dtrain.core.errors import UserError
from dtrain.core.tensor import HOST, Memory

T = TypeVar("T")


@ENGINES.register("onednn")
class OneDnnEngine(Engine):
    """Carry out operations by oneDNN on float32 blobs. Raises UserError where oneDNN is missing or can't be used.

    Layers that compute on arrays themselves find them on the host. Processes must not fork once it has run.

    values: the type of what convolutions and inner products compute with, BF16 by precision "BF16". What a
    convolution gives stays bf16 in its layout until somebody wants it plain; operations that take values as they come
    then work on bf16 too. Sums are float32, and so are params, of which rounded copies are read, and their gradients.
    """

    name: ClassVar[str] = "onednn"
    precisions: ClassVar[tuple[str, ...]] = ("FLOAT32", "BF16")
    memory: Memory = HOST
    xp: Any = np
    operations: Mapping[type, Callable[[Any, Any], Any]] = {
        op.ActivationSpec: Activation,
        op.BatchNormSpec: BatchNorm,
        op.ConcatSpec: Concat,
        op.ConvolutionSpec: create_convolution,
        op.EltwiseSpec: create_eltwise,
        op.FusedBatchNormSpec: FusedBatchNorm,
        op.FusedSumSpec: FusedSum,
        op.FusedWeightedSpec: FusedWeighted,
        op.InnerProductSpec: create_inner_product,
        op.LRNSpec: LRN,
        op.PoolingSpec: Pooling,
        op.SoftmaxSpec: Softmax,
    }

    def __init__(self, precision: str = "FLOAT32") -> None:
        super().__init__(precision)
        self.fallback: Engine = ReferenceEngine()
        self.binding = _bind()
        self.values = BF16 if precision == "BF16" else FLOAT32
        if self.values == BF16 and not self.binding.library.has_bf16:
            raise UserError(f"engine onednn: {NO_BF16}")
        self.layouts = Layouts(self.binding)
        give_signals_a_stack()
        self._lent = threading.local()

    def create(self, spec: Any) -> Any:
        """Return the object that carries out `spec`; of a batch without values the reference engine takes care."""
        return self.fallback.create(spec) if _is_empty(spec) else super().create(spec)

    def create_own(self, spec: Any) -> Any:
        """Return the object that carries out `spec`; raise NotOffered if there is none, or no value."""
        if _is_empty(spec):
            raise NotOffered
        return super().create_own(spec)

    def plan(self, steps: Sequence[Step]) -> None:
        """Let the operations work in the layouts that are best for the net as a whole."""
        plan_layouts(steps)

    def create_in_its_values(self, kind: str, create: Callable[[int], T]) -> T:
        """Return create(values) for the type of values that the engine computes in, or create(FLOAT32) where oneDNN
        has no fast code for that; the log says so.
        """
        if self.values == FLOAT32:
            return create(FLOAT32)
        try:
            return create(self.values)
        except NotOffered as limits:
            created = create(FLOAT32)
            self.tell_of_float32(" ".join([kind, *limits.args]))
            return created

    def tell_of_float32(self, kind: str) -> None:
        """Say once that what was to be computed in bf16 is not."""
        self.tell_once(f"engine {self.name} has no {kind} in bf16; that is computed in float32")

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
        in_bf16 = ", bf16" if self.values == BF16 else ""
        text = f"{self.name}: oneDNN {library.version}{in_bf16}, {threads}"
        return f"{text}; what it lacks: {self.fallback.describe()}"


@cache
def _bind() -> Binding:
    return Binding(load_library(os.environ))


def _is_empty(spec: Any) -> bool:
    return any(0 in shape for shape in _shapes(spec))


def _shapes(spec: Any) -> list[op.Shape]:
    """Return the shapes that a spec names."""
    if isinstance(spec, op.FusedWeightedSpec):
        spec = spec.operation
    if isinstance(spec, op.FusedSumSpec):
        spec = spec.sum
    if isinstance(spec, op.InnerProductSpec):
        return [(spec.num_rows, spec.num_inputs, spec.num_outputs)]
    if isinstance(spec, op.FusedBatchNormSpec):
        spec = spec.norm
    if isinstance(spec, op.ConcatSpec):
        return list(spec.x_shapes)
    shape: op.Shape = spec.shape if isinstance(spec, op.EltwiseSpec) else spec.x_shape
    return [shape, getattr(spec, "y_shape", shape)]
