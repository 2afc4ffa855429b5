from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.reference import correlation
from dtrain.core.engines.reference.correlation import Correlation
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.engines.reference.lowering import Lowering

ONES, ZEROS = (1, 1), (0, 0)


def make_correlation() -> Correlation:
    return Correlation(ReferenceEngine(), Lowering(np, (6, 6), (3, 3), ONES, ZEROS, ONES, (4, 4)), 2, 3, 1)


@pytest.mark.parametrize("block_values", [1, 2 * 9 * 16 * 2, 1 << 20], ids=["1", "2", "all"])
def test_correlation_in_blocks_of_any_size_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, block_values: int
) -> None:
    random = np.random.default_rng(3)
    fine, weight, coarse = (
        random.random((5, 2, 6, 6)),
        random.random((3, 2, 3, 3)),
        random.random((5, 3, 4, 4)),
    )
    windows = np.lib.stride_tricks.sliding_window_view(fine, (3, 3), axis=(2, 3))
    monkeypatch.setattr(correlation, "BLOCK_VALUES", block_values)
    correlate = make_correlation()

    found = np.empty((5, 3, 4, 4))
    correlate.correlate(fine, weight, None, found)
    np.testing.assert_allclose(found, np.einsum("ncpqrs,kcrs->nkpq", windows, weight), rtol=1e-12)

    weight_diff = np.ones_like(weight)
    correlate.add_weight_gradient(fine, coarse, weight_diff)
    np.testing.assert_allclose(weight_diff - 1, np.einsum("ncpqrs,nkpq->kcrs", windows, coarse), rtol=1e-12)

    spread = np.empty_like(fine)
    correlate.spread(coarse, weight, spread)
    assert (spread * fine).sum() == pytest.approx((found * coarse).sum(), rel=1e-12)


def test_correlation_block_holds_at_most_the_limit_and_at_least_one_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values_per_image = 2 * 9 * 16
    for limit, block in [(1, 1), (values_per_image * 3 - 1, 2), (values_per_image * 3, 3)]:
        monkeypatch.setattr(correlation, "BLOCK_VALUES", limit)
        assert make_correlation().block == block
