"""CaffeNet and ResNet-50 as the overlap benchmark sees them: for each layer its params and its multiplications."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """num_params: those that are learned. num_products: multiplications of forward for one image."""

    name: str
    num_params: int
    num_products: int


def convolution(
    name: str, channels: int, num_output: int, kernel: int, size: int, *, group: int = 1, bias: bool = True
) -> Layer:
    """Return a convolution whose output is (num_output, size, size)."""
    weights = num_output * (channels // group) * kernel * kernel
    return Layer(name, weights + bias * num_output, weights * size * size)


def inner_product(name: str, num_input: int, num_output: int) -> Layer:
    """Return an inner product with bias."""
    return Layer(name, num_input * num_output + num_output, num_input * num_output)


def elementwise(name: str, count: int, num_params: int = 0) -> Layer:
    """Return a layer that does little to each of its `count` values."""
    return Layer(name, num_params, count)


def caffenet() -> list[Layer]:
    """Return the layers of CaffeNet: 60,965,224 params."""
    layers = []
    #             C, out, kernel, size, group; the size behind the pooling, if there is one
    shapes = [
        (3, 96, 11, 55, 1, 27),
        (96, 256, 5, 27, 2, 13),
        (256, 384, 3, 13, 1, 0),
        (384, 384, 3, 13, 2, 0),
        (384, 256, 3, 13, 2, 6),
    ]
    for i, (channels, num_output, kernel, size, group, pooled) in enumerate(shapes, 1):
        layers += [
            convolution(f"conv{i}", channels, num_output, kernel, size, group=group),
            elementwise(f"relu{i}", num_output * size * size),
        ]
        if pooled:
            layers.append(elementwise(f"pool{i}", num_output * pooled * pooled * 9))
        if i <= 2:
            layers.append(elementwise(f"norm{i}", num_output * pooled * pooled * 5))
    for name, num_input, num_output in (("fc6", 9216, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)):
        layers += [inner_product(name, num_input, num_output), elementwise(f"behind {name}", num_output)]
    return layers


def resnet50() -> list[Layer]:
    """Return the layers of ResNet-50: 25,557,032 params, those of the batch norms included."""
    layers = [*_normalised("conv1", 3, 64, 7, 112), elementwise("pool1", 64 * 56 * 56 * 9)]
    channels = 64
    for stage, (num_blocks, width, size) in enumerate(
        ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)), 2
    ):
        for block in range(num_blocks):
            name = f"res{stage}{'abcdef'[block]}"
            entry = size * 2 if block == 0 and stage > 2 else size  # the 3x3 convolution has the stride
            if block == 0:
                layers += _normalised(f"{name}_1", channels, 4 * width, 1, size)
            layers += _normalised(f"{name}_2a", channels, width, 1, entry)
            layers += _normalised(f"{name}_2b", width, width, 3, size)
            layers += _normalised(f"{name}_2c", width, 4 * width, 1, size)
            channels = 4 * width
    return [*layers, inner_product("fc1000", 2048, 1000)]


def _normalised(name: str, channels: int, num_output: int, kernel: int, size: int) -> Iterator[Layer]:
    count = num_output * size * size
    yield convolution(name, channels, num_output, kernel, size, bias=False)
    yield elementwise(f"bn_{name}", 4 * count, num_params=2 * num_output)
    yield elementwise(f"relu_{name}", count)


NETS = {"caffenet": caffenet, "resnet50": resnet50}
