from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn.binding import DST, FLOAT32, FORWARD, SRC, SRC_1, Primitive
from dtrain.core.engines.onednn.relu import VISIBLE_RELU, ReluGradient

SHAPE = (2, 20, 3, 4)
ADD = 0x1FFF0
LARGE = float(np.finfo(np.float32).max)
TINY = 2.0**-127


def relu_of(bench: Any, values: Any) -> Any:
    """Return relu of `values` as the post-operation gives it, behind a sum with 0."""
    x = np.array(values, np.float32)
    layout = bench.engine.binding.plain(x.shape)
    what = bench.engine.binding.describe("binary", ADD, layout, layout, layout, post_ops=VISIBLE_RELU)
    y = np.empty_like(x)
    operands = dict.fromkeys((SRC, SRC_1, DST), layout)
    Primitive(bench.engine.binding, what, operands).run(x, np.zeros_like(x), y)
    return y


def test_visible_relu_of_numbers_is_exact(bench: Any) -> None:
    x = [LARGE, np.inf, 1.0, 2.0**-126, TINY, 0.0, -0.0, -TINY, -1.0, -LARGE]
    y = relu_of(bench, x)
    np.testing.assert_array_equal(y, [LARGE, np.inf, 1.0, 2.0**-126, TINY, 0, 0, 0, 0, 0])
    assert not np.signbit(y).any()


def test_visible_relu_of_any_scale_is_exact(bench: Any) -> None:
    exponents = bench.random.integers(-126, 127, 4000)
    x = (bench.random.choice([-1, 1], 4000) * bench.random.uniform(1, 2, 4000) * np.exp2(exponents)).astype(
        np.float32
    )
    np.testing.assert_array_equal(relu_of(bench, x), np.maximum(x, 0))


@pytest.mark.parametrize("value", [np.nan, -np.nan, -np.inf])
def test_visible_relu_of_what_is_no_number_shows_it(bench: Any, value: float) -> None:
    assert np.isnan(relu_of(bench, [value])).all()


def test_visible_relu_of_the_smallest_values_gives_less_but_never_more(bench: Any) -> None:
    x = np.arange(1, 1 << 22, 1013, dtype=np.uint32).view(np.float32)  # below 2 to the -127
    y = relu_of(bench, x)
    assert np.all((y >= 0) & (y <= x))


def test_relu_of_onednn_itself_would_hide_a_nan(bench: Any) -> None:
    """Why there is a relu of our own: should this fail some day, the plain one would do."""
    binding, x, y = bench.engine.binding, np.full(16, np.nan, np.float32), np.ones(16, np.float32)
    layout = binding.plain(x.shape, (), FLOAT32)
    what = binding.describe("eltwise_forward", FORWARD, 0x20, layout, layout, 0.0, 0.0)
    Primitive(binding, what, {SRC: layout, DST: layout}).run(x, y)
    np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
def test_relu_gradient_is_what_arrives_where_y_is_above_0(bench: Any, layout: str, in_place: bool) -> None:
    values, y_diff = np.maximum(bench.normal(*SHAPE), 0), bench.normal(*SHAPE)
    y = bench.blob(values, layout, y_diff)
    target = y if in_place else Blob(SHAPE)
    ReluGradient(bench.engine, SHAPE).run(y, target)
    assert target.diff_tensor.storage.valid == {bench.memory(layout, SHAPE)}
    np.testing.assert_array_equal(target.diff, (y_diff * (values > 0)).astype(np.float32))
    if not in_place:
        np.testing.assert_array_equal(y.diff, y_diff.astype(np.float32))


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
def test_relu_gradient_in_bf16_is_exact(bf16_bench: Any, layout: str) -> None:
    values, y_diff = np.maximum(bf16_bench.normal(*SHAPE), 0), bf16_bench.normal(*SHAPE)
    y = bf16_bench.blob(values, layout, y_diff)
    ReluGradient(bf16_bench.engine, SHAPE).run(y, y)
    np.testing.assert_array_equal(y.diff, (y_diff * (values > 0)).astype(np.float32))
