"""What a GPU reaches at its best: products of matrices, by cuBLAS, and copies. Prints JSON, rates a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from gpu_nets import seconds_on_gpu
from gpu_played import IS_PLAYED, play_if_asked

from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.cublas import Cublas
from dtrain.core.engines.cupy.matrix import Matrices
from dtrain.core.engines.engine import Engine

SIZE, COPY_BYTES = (64, 1 << 12) if IS_PLAYED else (8192, 1 << 32)
NUM_DIFFERENT = 64  # columns; random, since products of zeros take less power, and so less time
NUM_RUNS = 10
DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "tf32": np.dtype(np.float32)}


def best_seconds(engine: Engine, run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some runs, after some to warm up."""
    for _ in range(3):
        run()
    return min(seconds_on_gpu(engine, run) for _ in range(NUM_RUNS))


def main() -> None:
    """Print the rates."""
    play_if_asked()
    engine = create_engine("cudnn", "BF16")
    xp: Any = engine.xp
    matrices = Matrices(Cublas(xp), allows_tf32=True)
    rates: dict[str, float | str] = {"engine": engine.describe()}
    different = np.random.default_rng(0).standard_normal((SIZE, NUM_DIFFERENT), np.float32)
    values = np.tile(different, (1, SIZE // NUM_DIFFERENT))
    for title, dtype in DTYPES.items():
        left = xp.asarray(values.astype(dtype))
        out = xp.empty((SIZE, SIZE), dtype)
        seconds = best_seconds(engine, lambda a=left, c=out: matrices.multiply(a, a.T, c))  # type: ignore[misc]
        rates[f"{title}_flops"] = 2 * SIZE**3 / seconds
    source = xp.zeros(COPY_BYTES // 8, np.float32)
    target = xp.empty_like(source)

    def copy() -> None:
        target[...] = source

    rates["copy_bytes"] = COPY_BYTES / best_seconds(engine, copy)  # read and written
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
