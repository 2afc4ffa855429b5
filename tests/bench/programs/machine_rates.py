"""What this machine can do at most, measured in turns with the nets: the roof that their layers are under.

OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 machine_rates.py     A turn of n: n products and copies; "rates": the best

Products of float32 matrices, in operations a second; copies of an array that no cache holds, in bytes read and
written a second.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from turns import NUM_THREADS, now, take_turns

SIZE, NUM_VALUES = 2048, 1 << 26


def main() -> None:
    """Measure in turns."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))
    product = np.empty_like(a)
    source, target = (np.ones((NUM_THREADS, NUM_VALUES // NUM_THREADS), np.float32) for _ in range(2))
    products, copies = [], []
    with ThreadPoolExecutor(NUM_THREADS) as threads:

        def measure(num_times: int) -> None:
            for _ in range(num_times):
                products.append(2 * SIZE**3 / _seconds(lambda: np.matmul(a, b, out=product)))
                run = lambda: list(threads.map(np.copyto, target, source))  # noqa: E731
                copies.append(2 * source.nbytes / _seconds(run))

        take_turns(measure, {"rates": lambda: {"flops_per_s": max(products), "bytes_per_s": max(copies)}})


def _seconds(run: Callable[[], object]) -> float:
    began = now()
    run()
    return now() - began


if __name__ == "__main__":
    main()
