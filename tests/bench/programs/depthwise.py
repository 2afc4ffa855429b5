"""A depthwise convolution of 3 x 3, forward and backward: depthwise.py's way, the matrix products', and PyTorch's.

Usage: depthwise.py NUM_IMAGES NUM_CHANNELS SIZE STRIDE. Prints JSON of milliseconds for y, dx and dw together.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dtrain.core.engines.reference.correlation import Correlation
from dtrain.core.engines.reference.depthwise import DepthwiseCorrelation
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.engines.reference.lowering import Lowering
from dtrain.core.engines.reference.phases import Phases

NUM_PASSES = 7
KERNEL, PAD, DILATION = (3, 3), (1, 1), (1, 1)


def median_ms(run: Callable[[], object]) -> float:
    """Return the median time of a call, after one to warm up."""
    run()
    times = []
    for _ in range(NUM_PASSES):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def ours(correlation: Correlation | DepthwiseCorrelation, x: Any, weight: Any, dy: Any) -> Callable[[], None]:
    """Return a forward and backward pass of a correlation."""
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(weight)

    def run() -> None:
        correlation.correlate(x, weight, None, y)
        correlation.spread(dy, weight, dx)
        correlation.add_weight_gradient(x, dy, dw)

    return run


def torch_pass(x: Any, weight: Any, dy: Any, stride: int) -> Callable[[], None]:
    """Return the same in PyTorch, on one thread."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    x, weight, dy = (torch.tensor(values) for values in (x, weight, dy))
    leaves = x.requires_grad_(), weight.requires_grad_()

    def run() -> None:
        y = torch.nn.functional.conv2d(x, weight, None, stride, 1, 1, weight.shape[0])
        torch.autograd.grad(y, leaves, dy)

    return run


def main() -> None:
    """Time all that are there."""
    num_images, num_channels, size, stride = map(int, sys.argv[1:])
    output = ((size - 1) // stride + 1,) * 2
    random = np.random.default_rng(0)
    x = random.standard_normal((num_images, num_channels, size, size), np.float32)
    dy = random.standard_normal((num_images, num_channels, *output), np.float32)
    weight = random.standard_normal((num_channels, 1, *KERNEL), np.float32)
    phases = Phases((size, size), KERNEL, (stride, stride), PAD, DILATION)
    engine = ReferenceEngine()
    depthwise = DepthwiseCorrelation(engine, phases, output, num_channels, num_channels)
    lowering = Lowering(np, (size, size), KERNEL, (stride, stride), PAD, DILATION, output)
    plain = Correlation(engine, lowering, num_channels, num_channels, num_channels)
    result = {
        "depthwise_ms": median_ms(ours(depthwise, x, weight, dy)),
        "plain_ms": median_ms(ours(plain, x, weight, dy)),
    }
    if importlib.util.find_spec("torch") is not None:
        result["torch_ms"] = median_ms(torch_pass(x, weight, dy, stride))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
