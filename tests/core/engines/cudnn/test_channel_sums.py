from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines.cudnn.channel_sums import ChannelSums
from tests.core.engines.cudnn.conftest import Bench


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(
    "shape", [(3, 8, 2, 5), (2, 5, 3, 3), (1, 264, 2, 2), (40, 16, 4, 4), (2, 8, 2, 2, 3)]
)
@pytest.mark.parametrize("precision", ["BF16", "FLOAT16"])
def test_run_gives_the_sum_of_each_channel(
    make_bench: Callable[..., Bench], precision: str, shape: tuple[int, ...], adds: bool
) -> None:
    bench = make_bench(precision)
    xp, half = bench.engine.xp, bench.engine.memories.half
    values = bench.normal(*shape)
    x = xp.asarray(np.ascontiguousarray(np.moveaxis(values, 1, -1)).astype(half))
    totals = xp.asarray(np.full(shape[1], 2 if adds else np.nan, np.float32))
    ChannelSums(bench.engine, shape).run(x, totals, adds)
    expected = values.sum(axis=(0, *range(2, len(shape)))) + 2 * adds
    np.testing.assert_allclose(totals.get(), expected, rtol=1e-5, atol=1e-5)
