"""Each layer of a net like CaffeNet, forward and backward: oneDNN, the reference engine and PyTorch on one thread.

OMP_NUM_THREADS=1 engine_layers.py BATCH_SIZE NUM_ROUNDS

Values lie where the engine likes them best, as between two layers of a net. The ways take turns, and processor time
counts, since machines are busy. Prints a line of JSON per layer: medians in ms of forward and backward together.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dtrain.core.blob import Blob
from dtrain.core.engines import ENGINES, Engine, create_engine
from dtrain.core.engines.operations import (
    ActivationSpec,
    BatchNormSpec,
    ConvolutionSpec,
    InnerProductSpec,
    LRNSpec,
    PoolingSpec,
    Wanted,
)

Shape = tuple[int, ...]


def convolution(x: Shape, num_output: int, kernel: int, stride: int, pad: int, group: int = 1) -> Any:
    """Return the spec and the torch layer of a convolution."""
    size = (x[2] + 2 * pad - kernel) // stride + 1
    weight = (num_output, x[1] // group, kernel, kernel)
    y = (x[0], num_output, size, size)
    spec = ConvolutionSpec(x, weight, y, 1, (stride,) * 2, (pad,) * 2, (1, 1), group)
    return spec, nn.Conv2d(x[1], num_output, kernel, stride, pad, groups=group)


def pooling(x: Shape, method: str, kernel: int, stride: int) -> Any:
    """Return the spec and the torch layer of a pooling that rounds up."""
    size = -(-(x[2] - kernel) // stride) + 1
    kind = nn.MaxPool2d if method == "MAX" else nn.AvgPool2d
    spec = PoolingSpec(x, (*x[:2], size, size), method, (kernel,) * 2, (stride,) * 2, (0, 0))
    return spec, kind(kernel, stride, ceil_mode=True)


def layers(n: int) -> dict[str, Any]:
    """Return spec and torch layer by name for batches of n."""
    return {
        "conv1 11x11/4 3-96": convolution((n, 3, 227, 227), 96, 11, 4, 0),
        "conv2 5x5 96-256 in 2 groups": convolution((n, 96, 27, 27), 256, 5, 1, 2, 2),
        "conv3 3x3 256-384": convolution((n, 256, 13, 13), 384, 3, 1, 1),
        "conv 3x3 64-64 56x56": convolution((n, 64, 56, 56), 64, 3, 1, 1),
        "conv 1x1 256-64 28x28": convolution((n, 256, 28, 28), 64, 1, 1, 0),
        "conv 5x5 20-50 12x12 (LeNet)": convolution((n, 20, 12, 12), 50, 5, 1, 0),
        "relu 96 55x55": (ActivationSpec((n, 96, 55, 55), "relu"), nn.ReLU()),
        "max pool 3x3/2 96 55x55": pooling((n, 96, 55, 55), "MAX", 3, 2),
        "average pool 3x3/2 64 56x56": pooling((n, 64, 56, 56), "AVE", 3, 2),
        "LRN 5 96 27x27": (
            LRNSpec((n, 96, 27, 27), 5, 1e-4, 0.75, 1.0, False),
            nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0),
        ),
        "batch norm 64 56x56": (BatchNormSpec((n, 64, 56, 56), 1e-5, True), nn.BatchNorm2d(64, affine=False)),
        "inner product 9216-4096": (InnerProductSpec(n, 9216, 4096), nn.Linear(9216, 4096)),
    }


def is_of_images(x_shape: Shape) -> bool:
    """Return whether a layer's bottom is a batch of images, which need no gradient."""
    return len(x_shape) == 4 and x_shape[1] == 3


def ours(spec: Any, engine: Engine) -> Callable[[], None]:
    """Return a forward and backward pass on an engine."""
    operation = engine.create(spec)
    is_product = isinstance(spec, InnerProductSpec)
    x = Blob((spec.num_rows, spec.num_inputs) if is_product else spec.x_shape)
    y = Blob((spec.num_rows, spec.num_outputs) if is_product else getattr(spec, "y_shape", x.shape))
    x.write_data()[...] = np.random.default_rng(1).standard_normal(x.shape)
    params: list[Blob] = []
    if isinstance(spec, ConvolutionSpec | InnerProductSpec):
        weight = (spec.num_outputs, spec.num_inputs) if is_product else spec.weight_shape
        params = [Blob(weight), Blob((weight[0],))]
    wanted = [Wanted(x=not is_of_images(x.shape))] if params else []
    more: dict[type, list[Any]] = {
        BatchNormSpec: [Blob(x.shape[1:2]), Blob(x.shape[1:2])],
        PoolingSpec: [None],
    }
    settle(engine, x)

    def run() -> None:
        for param in params:
            param.update_data()  # as an update does: what was derived from the values is void
        operation.forward(x, *params, y, *more.get(type(spec), []))
        if not y.diff_tensor.storage.valid:
            y.write_diff()[...] = 1
            settle(engine, y)
        operation.backward(x, *params, y, *wanted)

    return run


def settle(engine: Engine, blob: Blob) -> None:
    """Let the values lie as a convolution in front (data) and behind (diff) would leave them."""
    if engine.name != "onednn" or len(blob.shape) != 4 or is_of_images(blob.shape):
        return
    shape = blob.shape
    weight = (shape[1], shape[1], 1, 1)
    same = ConvolutionSpec(shape, weight, shape, 1, (1, 1), (0, 0), (1, 1))
    memory = engine.create(same).y_memory
    for tensor in (blob.data_tensor, blob.diff_tensor):
        if tensor.storage.valid:
            tensor.update(memory)


def torch_pass(layer: nn.Module, x_shape: Shape) -> Callable[[], None]:
    """Return a forward and backward pass in PyTorch."""
    x = torch.randn(x_shape, requires_grad=not is_of_images(x_shape))
    y_diff = torch.ones_like(layer(x))

    def run() -> None:
        layer(x).backward(y_diff)

    return run


def main() -> None:
    """Measure and print."""
    batch_size, num_rounds = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    engines = {name: create_engine(name) for name in ENGINES}
    for name, (spec, layer) in layers(batch_size).items():
        shape = getattr(spec, "x_shape", None) or (spec.num_rows, spec.num_inputs)
        ways = {key: ours(spec, engine) for key, engine in engines.items()}
        ways["torch"] = torch_pass(layer, shape)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for round_number in range(num_rounds + 1):
            for way, run in ways.items():
                began = time.process_time()
                run()
                if round_number:  # the first one warms up
                    times[way].append(1000 * (time.process_time() - began))
        medians = {way: round(statistics.median(values), 2) for way, values in times.items()}
        print(json.dumps({"layer": name, **medians}), flush=True)


if __name__ == "__main__":
    main()
