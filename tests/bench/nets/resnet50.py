"""Write a residual net of 50 layers (25.6 million params) on made-up images of 224x224, for measuring and predicting.

resnet50.py PATH [BATCH_SIZE]

Source of the shapes: "Deep Residual Learning for Image Recognition" (He, Zhang, Ren, Sun, 2015), table 1; the stride
of a stage is in its first 1x1 convolution, as there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

STAGES = (
    (64, 3, 1),
    (128, 4, 2),
    (256, 6, 2),
    (512, 3, 2),
)  # channels within a block, blocks, stride of the first
WIDENING = 4


def resnet50(batch_size: int) -> str:
    """Return the prototxt."""
    return "\n".join(['name: "resnet50"', *_layers(batch_size)]) + "\n"


def _layers(batch_size: int) -> Iterator[str]:
    yield (
        'layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {\n'
        f"  shape {{ dim: {batch_size} dim: 3 dim: 224 dim: 224 }} shape {{ dim: {batch_size} }}\n"
        '  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 3 } } }'
    )
    yield from _convolution("stem", "data", 64, 7, 2)
    yield _relu("stem")
    yield _pooling("pool", "stem", "pool: MAX kernel_size: 3 stride: 2")
    bottom = "pool"
    for number, (channels, num_blocks, stride) in enumerate(STAGES, start=2):
        for block in range(num_blocks):
            name = f"stage{number}_{block + 1}"
            yield from _block(name, bottom, channels, stride if block == 0 else 1, block == 0)
            bottom = name
    yield _pooling("mean", bottom, "pool: AVE global_pooling: true")
    yield 'layer { name: "scores" type: "InnerProduct" bottom: "mean" top: "scores"'
    yield '  inner_product_param { num_output: 1000 weight_filler { type: "xavier" } } }'
    yield 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }'


def _block(name: str, bottom: str, channels: int, stride: int, is_first: bool) -> Iterator[str]:
    """Yield three convolutions and the sum with the way around them, which the first block of a stage projects."""
    around = bottom
    if is_first:
        around = f"{name}_around"
        yield from _convolution(around, bottom, WIDENING * channels, 1, stride)
    ways = ((channels, 1, stride), (channels, 3, 1), (WIDENING * channels, 1, 1))
    for number, (num_output, size, step) in enumerate(ways):
        top = f"{name}_{'abc'[number]}"
        yield from _convolution(top, bottom, num_output, size, step)
        if number < 2:
            yield _relu(top)
        bottom = top
    yield f'layer {{ name: "{name}" type: "Eltwise" bottom: "{around}" bottom: "{bottom}" top: "{name}" }}'
    yield _relu(name)


def _convolution(name: str, bottom: str, num_output: int, size: int, stride: int) -> Iterator[str]:
    """Yield a convolution without biases, and its normalisation."""
    yield f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{'
    yield (
        f"  num_output: {num_output} kernel_size: {size} stride: {stride} pad: {size // 2} bias_term: false"
        ' weight_filler { type: "msra" } } }'
    )
    yield f'layer {{ name: "{name}_bn" type: "BatchNorm" bottom: "{name}" top: "{name}" }}'
    scale = f'type: "Scale" bottom: "{name}" top: "{name}" scale_param {{ bias_term: true }}'
    yield f'layer {{ name: "{name}_scale" {scale} }}'


def _relu(blob: str) -> str:
    return f'layer {{ name: "{blob}_relu" type: "ReLU" bottom: "{blob}" top: "{blob}" }}'


def _pooling(name: str, bottom: str, window: str) -> str:
    return f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" pooling_param {{ {window} }} }}'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(resnet50(int(sys.argv[2]) if len(sys.argv) > 2 else 64))
