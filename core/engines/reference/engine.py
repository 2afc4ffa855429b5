"""The reference engine: numpy on host memory. Engines with a twin of numpy can derive from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from dtrain.core.engines import operations as op
from dtrain.core.engines.engine import ENGINES, Engine
from dtrain.core.engines.reference.activation import Activation
from dtrain.core.engines.reference.batch_norm import BatchNorm
from dtrain.core.engines.reference.concat import Concat
from dtrain.core.engines.reference.convolution import create_convolution
from dtrain.core.engines.reference.dropout import Dropout
from dtrain.core.engines.reference.eltwise import create_eltwise
from dtrain.core.engines.reference.inner_product import InnerProduct
from dtrain.core.engines.reference.lrn import LRN
from dtrain.core.engines.reference.pooling import create_pooling
from dtrain.core.engines.reference.row_sums import RowSums
from dtrain.core.engines.reference.softmax import Softmax
from dtrain.core.tensor import HOST, Memory


@ENGINES.register("reference")
class ReferenceEngine(Engine):
    """Carry out every operation in numpy, with its BLAS for what is a matrix product."""

    name: ClassVar[str] = "reference"
    memory: Memory = HOST
    xp: Any = np
    operations: Mapping[type, Callable[[Any, Engine], Any]] = {
        op.ActivationSpec: Activation,
        op.BatchNormSpec: BatchNorm,
        op.ConcatSpec: Concat,
        op.ConvolutionSpec: create_convolution,
        op.DropoutSpec: Dropout,
        op.EltwiseSpec: create_eltwise,
        op.InnerProductSpec: InnerProduct,
        op.LRNSpec: LRN,
        op.PoolingSpec: create_pooling,
        op.RowSumsSpec: RowSums,
        op.SoftmaxSpec: Softmax,
    }

    def describe(self) -> str:
        """Return numpy's version, its BLAS and how many threads that BLAS may use."""
        blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        blas_text = " ".join(blas[key] for key in ("name", "version") if key in blas) or "no BLAS"
        count = num_blas_threads()
        return f"{self.name}: numpy {np.__version__}, {blas_text}, {count} thread{'s' * (count > 1)}"


def num_blas_threads() -> int:
    """Return how many threads the environment, or else the cores that this process may use, give the BLAS."""
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
