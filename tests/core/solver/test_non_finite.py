from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.solver.non_finite import find_non_finite, is_finite
from tests.core.net_builder import TEST, inputs, make_net

LARGE = np.finfo(np.float32).max

CASES = {
    "numbers": ([1, -2, 0], True),
    "none": ([], True),
    "a NaN": ([1, np.nan, 2], False),
    "infinities that cancel": ([np.inf, -np.inf], False),
    "a sum that overflows": ([LARGE, LARGE], True),
    "an infinity behind a sum that overflows": ([LARGE, LARGE, np.inf], False),
}


@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES)
def test_is_finite_of(values: list[float], expected: bool) -> None:
    assert is_finite(np.array(values, np.float32)) is expected


def test_find_non_finite_among_blobs_that_share_memory_looks_at_those_that_are_left() -> None:
    layers = [("TanH", "x", "a"), ("TanH", "a", "b"), ("Exp", "b", "c")]
    net = make_net(
        inputs(x=(2, 3))
        + "".join(
            f'layer {{ name: "{y}" type: "{kind}" bottom: "{x}" top: "{y}" }}' for kind, x, y in layers
        ),
        TEST,
    )
    share_memory([net])
    net.blobs["x"].write_data()[...] = 1
    net.layers[-1].forward = lambda bottom, top: top[0].write_data().fill(np.nan)  # type: ignore[method-assign]
    net.forward()
    assert find_non_finite(net).endswith(
        'layer "c": 6 of 6 values are infinite or NaN in its top "c", all before it that is kept is finite'
    )
