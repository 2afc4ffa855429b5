from __future__ import annotations

from typing import Any

import pytest

from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn.lrn import LRN
from dtrain.core.engines.operations import LRNSpec
from tests.core.engines.onednn.conftest import BF16_ROUNDOFF


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
@pytest.mark.parametrize("within_channel", [False, True])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(2, 32, 5, 6), (1, 96, 7, 7)])
def test_lrn_in_each_layout_gives_what_the_reference_gives(
    bench: Any, shape: tuple[int, ...], size: int, within_channel: bool, layout: str
) -> None:
    spec = LRNSpec(shape, size, 0.9, 0.75, 2.0, within_channel)
    assert isinstance(bench.engine.create(spec), LRN)
    bench.check_unary(spec, layout)


@pytest.mark.parametrize("num_channels", [1, 2, 15, 17, 20, 33, 48])
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_lrn_over_any_number_of_channels_gives_what_the_reference_gives(
    bench: Any, num_channels: int, size: int, beta: float
) -> None:
    bench.check_unary(LRNSpec((2, num_channels, 3, 3), size, 0.9, beta, 1.5, False), "channels last")


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(2, 32, 5, 6), (1, 20, 7, 7), (1, 96, 3, 3), (2, 1, 4, 4)])
def test_lrn_of_bf16_gives_what_the_reference_gives(
    bf16_bench: Any, shape: tuple[int, ...], size: int, layout: str
) -> None:
    spec = LRNSpec(shape, size, 0.9, 0.75, 2.0, False)
    bf16_bench.check_unary(spec, layout, gradient_tolerance=2 * BF16_ROUNDOFF)


@pytest.mark.parametrize(("size", "within_channel"), [(1, False), (1, True), (7, False), (7, True)])
def test_lrn_without_fast_code_is_not_offered(bench: Any, size: int, within_channel: bool) -> None:
    with pytest.raises(NotOffered, match=f"over {size} neighbours"):
        LRN(LRNSpec((2, 32, 5, 5), size, 0.9, 0.75, 1.0, within_channel), bench.engine)
