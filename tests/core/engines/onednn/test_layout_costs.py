from __future__ import annotations

import math

import pytest

from dtrain.core.engines.onednn.layout_costs import BLOCKED, LAST, concat_costs, convolution_costs, reorder_s
from dtrain.core.engines.operations import ConvolutionSpec


def spec(num_inputs: int, num_outputs: int, kernel: int, size: int = 8, group: int = 1) -> ConvolutionSpec:
    x_shape, y_shape = (2, num_inputs, size, size), (2, num_outputs, size, size)
    weight = (num_outputs, num_inputs // group, kernel, kernel)
    pad = kernel // 2
    return ConvolutionSpec(x_shape, weight, y_shape, 1, (1, 1), (pad, pad), (1, 1), group)


def test_convolution_costs_are_those_of_its_products() -> None:
    """2·64·64·32·9·2 operations a pass, three passes, at 100 GFLOP/s."""
    costs = convolution_costs(spec(32, 64, 3))
    seconds = 3 * (2 * 2 * 64 * 64 * 32 * 9) / 1e11
    assert costs == {BLOCKED: pytest.approx(seconds), LAST: pytest.approx(1.05 * seconds)}


def test_convolution_costs_with_few_products_are_those_of_its_values() -> None:
    costs = convolution_costs(spec(16, 16, 1))
    assert costs[BLOCKED] == pytest.approx(3 * 4 * (2 * 16 * 64 + 2 * 16 * 64) / 1e10)


def test_convolution_costs_of_blocks_grow_with_what_fills_them_up() -> None:
    """LeNet's second one: 20 and 50 channels fill up 32 and 64."""
    costs = convolution_costs(spec(20, 50, 5))
    assert costs[BLOCKED] / costs[LAST] == pytest.approx(math.sqrt(32 / 20 * 64 / 50) / 1.05)


@pytest.mark.parametrize(
    ("case", "liked"),
    [
        (spec(20, 50, 5), LAST),  # measured, time of blocks over channels last: 1.42
        (spec(24, 24, 3), LAST),  # 1.27
        (spec(20, 50, 1), LAST),  # 1.16
        (spec(64, 64, 3), BLOCKED),  # 1.0
        (spec(50, 100, 1), BLOCKED),  # 0.87
        (spec(1000, 512, 1), BLOCKED),  # 0.88
        (spec(24, 144, 1), BLOCKED),  # 0.86
        (spec(58, 58, 3, group=58), BLOCKED),  # 0.69
        (spec(3, 32, 3), BLOCKED),
    ],
)
def test_convolution_costs_are_least_where_it_was_measured_to_be_fastest(
    case: ConvolutionSpec, liked: str
) -> None:
    costs = convolution_costs(case)
    assert min(costs, key=lambda layout: costs[layout]) == liked


def test_convolution_costs_of_groups_leave_no_choice() -> None:
    assert list(convolution_costs(spec(32, 64, 3, group=2))) == [BLOCKED]


@pytest.mark.parametrize(
    ("stride", "group", "layouts"), [(2, 1, [LAST]), (1, 1, [BLOCKED, LAST]), (1, 32, [LAST])]
)
def test_convolution_costs_of_a_transposed_one_count_its_inputs(
    stride: int, group: int, layouts: list[str]
) -> None:
    """Each of 2·32·4·4 inputs is multiplied with 32·4·4 weights, or with those of its group."""
    strides, y_shape = (stride, stride), (2, 32, 3 * stride + 4, 3 * stride + 4)
    up = ConvolutionSpec(
        (2, 32, 4, 4),
        (32, 32 // group, 4, 4),
        y_shape,
        1,
        strides,
        (0, 0),
        (1, 1),
        group,
        transposed=True,
    )
    costs = convolution_costs(up)
    assert list(costs) == layouts
    flops = 2 * (2 * 32 * 16) * (32 // group * 16)
    num_bytes = 4 * (2 * 32 * 16 + math.prod(y_shape))
    factor = 1.05 if len(costs) > 1 else 1
    assert costs[LAST] == pytest.approx(factor * 3 * max(flops / 1e11, num_bytes / 1e10))


def test_concat_costs_more_where_blocks_would_be_cut() -> None:
    whole, cut = ((1, n, 8, 8) for n in (16, 24))
    assert len(set(concat_costs((whole, whole), 1).values())) == 1
    assert len(set(concat_costs((cut, cut), 2).values())) == 1
    costs = concat_costs((whole, cut), 1)
    assert costs[LAST] < costs[BLOCKED]


def test_reorder_s_is_the_time_of_reading_and_writing() -> None:
    assert reorder_s((10, 1000, 1000)) == pytest.approx(2 * 4 * 1e7 / 1e10, rel=0.01)
    assert reorder_s((1,)) > 0
