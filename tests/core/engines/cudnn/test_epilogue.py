from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines.cudnn.epilogue import Epilogue, add, pass_gradient
from tests.core.engines.cudnn.conftest import Bench

SHAPES = [(2, 3, 4, 5), (1, 8, 1, 1), (3, 5, 1, 7)]


@pytest.mark.parametrize(("bias", "adds", "relu"), list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("shape", SHAPES)
def test_epilogue_in_each_order_follows_the_formula(
    bench: Bench, shape: tuple[int, ...], bias: bool, adds: bool, relu: bool
) -> None:
    values, others, numbers = bench.normal(*shape), bench.normal(*shape), bench.normal(shape[1])
    y, added = bench.pair(values)[0], bench.pair(others)[0]
    biases = bench.pair(numbers, last=False)[0]
    memory = bench.engine.memories.best(shape)
    epilogue = Epilogue(bench.engine, shape, bias, adds, relu)
    epilogue.run(y.update_data(memory), memory, biases if bias else None, added if adds else None)
    expected = values + bias * numbers.reshape(-1, 1, 1) + adds * others
    bench.expect(y.data, np.maximum(expected, 0) if relu else expected)


def test_add_and_pass_gradient_of_any_count_follow_the_formula(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("FLOAT32")
    xp = bench.engine.xp
    for count in (1, 7, 8, 9, 8 * 256 + 3):
        a, b = (xp.asarray(bench.normal(count).astype(np.float32)) for _ in range(2))
        y, diff = xp.empty(count, np.float32), xp.empty(count, np.float32)
        add(bench.engine, a, b, y, relu=True)
        np.testing.assert_array_equal(y.get(), np.maximum(a.get() + b.get(), 0))
        pass_gradient(bench.engine, y, b, diff)
        np.testing.assert_array_equal(diff.get(), b.get() * (y.get() > 0))


def test_epilogue_of_nothing_launches_nothing(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    Epilogue(bench.engine, (1, 2, 3, 3), False, False, False).run(None, bench.engine.memories.plain, None)
    assert bench.engine._kernels == {}
