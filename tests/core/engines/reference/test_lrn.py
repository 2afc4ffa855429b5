from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.engines.operations import LRNSpec

Array = NDArray[np.float64]


def normalise(spec: LRNSpec, x: Array) -> Array:
    """Return the LRN of x, place by place."""
    y, reach = np.zeros_like(x), spec.local_size // 2
    for n, c, h, w in np.ndindex(x.shape):
        if spec.within_channel:
            near = x[n, c, max(h - reach, 0) : h + reach + 1, max(w - reach, 0) : w + reach + 1]
            scale = 1 + spec.alpha * (near**2).sum() / spec.local_size**2
        else:
            near = x[n, max(c - reach, 0) : c + reach + 1, h, w]
            scale = spec.k + spec.alpha / spec.local_size * (near**2).sum()
        y[n, c, h, w] = x[n, c, h, w] * scale**-spec.beta
    return y


@pytest.mark.parametrize("within_channel", [False, True])
@pytest.mark.parametrize("local_size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (1, 1, 1, 1), (1, 2, 6, 5), (0, 3, 2, 2)])
def test_lrn_forward_and_backward_follow_the_formula(
    rig: Any, shape: tuple[int, ...], local_size: int, within_channel: bool
) -> None:
    spec = LRNSpec(shape, local_size, 0.9, 0.75, 2.0, within_channel)
    x, y_diff = rig.normal(*shape), rig.normal(*shape)
    y, x_diff = rig.run_unary(spec, x, y_diff)
    rig.expect(y, normalise(spec, x))
    rig.expect_gradient(lambda x: normalise(spec, x), x, y_diff, x_diff)


def test_lrn_without_alpha_scales_by_k_to_the_minus_beta(rig: Any) -> None:
    x = rig.normal(1, 3, 2, 2)
    y, x_diff = rig.run_unary(LRNSpec(x.shape, 5, 0.0, 0.5, 4.0, False), x, np.ones(x.shape))
    rig.expect(y, x / 2)
    rig.expect(x_diff, np.full(x.shape, 0.5))
