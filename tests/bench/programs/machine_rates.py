"""What this machine can do at most, measured in turns with the nets: the roof that their layers are under.

OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 machine_rates.py [bf16]     A turn of n: n of each; "rates": the best

Convolutions 3x3 in the layout that oneDNN likes, forward and both gradients, and products of matrices (numpy's, in
float32), in operations a second; copies of an array that no cache holds, in bytes read and written a second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from turns import NUM_THREADS, now, take_turns

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import ConvolutionSpec, InnerProductSpec, Wanted

SIZE, NUM_VALUES = 2048, 1 << 26
CONVOLUTION = ConvolutionSpec(
    (8, 128, 28, 28), (128, 128, 3, 3), (8, 128, 28, 28), 1, (1, 1), (1, 1), (1, 1), bias=False
)


def convolution(engine: Engine) -> tuple[Callable[[], None], float]:
    """Return what runs CONVOLUTION both ways, its operands being where it left them, and its operations."""
    operation = engine.create(CONVOLUTION)
    x, weight, y = (
        normal_blob(shape) for shape in (CONVOLUTION.x_shape, CONVOLUTION.weight_shape, CONVOLUTION.y_shape)
    )

    def run() -> None:
        operation.forward(x, weight, None, y)
        operation.backward(x, weight, None, y, Wanted(bias=False))

    return run, 3 * 2.0 * y.count * weight.count / weight.shape[0]


def product(engine: Engine) -> Callable[[], object]:
    """Return what multiplies two matrices of SIZE x SIZE: numpy, or in bf16 an inner product of the engine."""
    x, weight, y = (normal_blob((SIZE, SIZE)) for _ in range(3))
    if engine.precision == "FLOAT32":
        a, b, out = (blob.read_data() for blob in (x, weight, y))
        return lambda: np.matmul(a, b, out=out)
    operation = engine.create(InnerProductSpec(SIZE, SIZE, SIZE, bias=False))
    return lambda: operation.forward(x, weight, None, y)


def normal_blob(shape: tuple[int, ...]) -> Blob:
    """Return a blob of normal data and diffs."""
    blob, random = Blob(shape), np.random.default_rng(0)
    for values in (blob.write_data(), blob.write_diff()):
        values[...] = random.standard_normal(shape, np.float32)
    return blob


def main() -> None:
    """Measure in turns."""
    engine = create_engine("onednn", "BF16" if "bf16" in sys.argv[1:] else "FLOAT32")
    source, target = (np.ones((NUM_THREADS, NUM_VALUES // NUM_THREADS), np.float32) for _ in range(2))
    convolve, flops = convolution(engine)
    rates: dict[str, float] = {}
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        ways: dict[str, tuple[Callable[[], object], float]] = {
            "convolution_flops_per_s": (convolve, flops),
            "product_flops_per_s": (product(engine), 2 * SIZE**3),
            "bytes_per_s": (lambda: list(threads.map(np.copyto, target, source)), 2 * source.nbytes),
        }

        def measure(num_times: int) -> None:
            for _ in range(num_times):
                for name, (run, work) in ways.items():
                    rates[name] = max(rates.get(name, 0), work / _seconds(run))

        take_turns(measure, {"rates": lambda: rates})


def _seconds(run: Callable[[], object]) -> float:
    began = now()
    run()
    return now() - began


if __name__ == "__main__":
    main()
