"""What it costs to work in a layout: counted, not measured, since a net should start at once and ranks should agree.

Seconds are those of one core with AVX-512; only their ratios count. There all passes of convolutions of 8 to 1000
channels were measured in both layouts, in float32 and in bf16. Blocks filled up with zeros to twice their values take
1.4 times as long, the root of that; channels last a fifth longer where nothing is used again (1x1, depthwise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.engines.operations import ConvolutionSpec, Shape

# What a blob's values can lie in. BLOCKED: what oneDNN likes best, nearly always channels in blocks of 16.
BLOCKED, LAST, PLAIN = "blocked", "channels last", "plain"
BLOCK = 16  # blocked layouts fill up the channels to a multiple of this …
FEW = 3  # … but for the few of an image, which are read as they are

_FLOPS_PER_S, _BYTES_PER_S, _START_S = 1e11, 1e10, 1e-5
_NUM_PASSES = 3  # forward and both gradients
_NUM_BYTES = 4
_LAST_WITHOUT_REUSE, _LAST = 1.2, 1.05


def convolution_costs(spec: ConvolutionSpec) -> dict[str, float]:
    """Return the seconds of a convolution's passes in each layout in which it can work.

    Groups have blocks. Transposed ones with strides have channels last, as oneDNN likes best there, and so have
    depthwise ones, whose gradient of the weight takes a hundred times as long in blocks.
    """
    num_inputs, num_outputs = spec.x_shape[spec.axis], spec.y_shape[spec.axis]
    places = spec.x_shape if spec.transposed else spec.y_shape
    num_products = math.prod(places) * math.prod(spec.weight_shape[1:])
    num_values = math.prod(spec.x_shape) + math.prod(spec.y_shape)
    seconds = _NUM_PASSES * max(2 * num_products / _FLOPS_PER_S, _NUM_BYTES * num_values / _BYTES_PER_S)
    is_depthwise = spec.group > 1 and spec.group == num_inputs == num_outputs
    if spec.group > 1 and not is_depthwise:
        return {BLOCKED: seconds}
    if spec.transposed and (is_depthwise or math.prod(spec.stride) > 1):
        return {LAST: seconds}
    filled = _filled(num_outputs) if is_depthwise else _filled(num_inputs) * _filled(num_outputs)
    has_reuse = math.prod(spec.weight_shape[2:]) > 1 and not is_depthwise
    last = _LAST if has_reuse else _LAST_WITHOUT_REUSE
    return {BLOCKED: seconds * math.sqrt(filled), LAST: seconds * last}


def concat_costs(shapes: Sequence[Shape], axis: int) -> dict[str, float]:
    """Return the seconds of a concatenation, both ways; where blocks would be cut it is done on plain values."""
    seconds = 2 * sum(map(reorder_s, shapes))
    can_join = axis != 1 or not any(shape[1] % BLOCK for shape in shapes)
    return {BLOCKED: seconds if can_join else 2 * seconds, LAST: seconds}


def reorder_s(shape: Shape) -> float:
    """Return the seconds of bringing values of `shape` into another layout."""
    return _START_S + 2 * _NUM_BYTES * math.prod(shape) / _BYTES_PER_S


def _filled(num_channels: int) -> float:
    """Return how many channels there are in blocks for each that there is."""
    return 1.0 if num_channels <= FEW else -(-num_channels // BLOCK) * BLOCK / num_channels
