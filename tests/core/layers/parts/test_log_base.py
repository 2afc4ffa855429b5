from __future__ import annotations

import math

import pytest

from dtrain.core.errors import UserError
from dtrain.core.layers.parts.log_base import log_of_base


@pytest.mark.parametrize(
    ("base", "expected"), [(-1, 1), (1, 0), (math.e, 1), (2, math.log(2)), (0.5, -math.log(2))]
)
def test_log_of_base_takes_minus_1_for_e(base: float, expected: float) -> None:
    assert log_of_base(base, "base") == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("base", [0, -2, math.inf, math.nan])
def test_log_of_base_that_is_none_is_named(base: float) -> None:
    with pytest.raises(UserError) as caught:
        log_of_base(base, "exp_param.base")
    assert str(caught.value) == f"exp_param.base must be greater than 0, or -1 for e, got {base:g}"
