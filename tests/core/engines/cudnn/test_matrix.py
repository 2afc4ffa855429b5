from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines.cudnn.matrix import Matrices
from tests.core.engines.cudnn.conftest import Bench


@pytest.mark.parametrize(
    ("transpose_a", "transpose_b", "adds"), list(itertools.product((False, True), repeat=3))
)
def test_multiply_in_each_precision_is_numpys_product(
    bench: Bench, transpose_a: bool, transpose_b: bool, adds: bool
) -> None:
    a, b, before = bench.normal(3, 4), bench.normal(4, 5), bench.normal(3, 5)
    xp, dtype = bench.engine.xp, bench.engine.memories.half or np.dtype(np.float32)
    given = [
        xp.asarray(np.ascontiguousarray(matrix.T if is_transposed else matrix).astype(dtype))
        for matrix, is_transposed in ((a, transpose_a), (b, transpose_b))
    ]
    out = xp.asarray(before.astype(np.float32))
    bench.engine.matrices.multiply(*given, out, transpose_a=transpose_a, transpose_b=transpose_b, adds=adds)
    np.testing.assert_allclose(out.get(), a @ b + adds * before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("allows_tf32", "number"), [(True, 77), (False, 68)])
def test_multiply_of_float32_is_rounded_only_if_allowed(
    make_bench: Callable[..., Bench], allows_tf32: bool, number: int
) -> None:
    bench = make_bench()
    cublas = bench.played.cublas
    xp = bench.engine.xp
    one = xp.ones((1, 1), np.float32)
    Matrices(xp, allows_tf32).multiply(one, one, one)
    half = xp.ones((1, 1), np.float16)
    Matrices(xp, allows_tf32).multiply(half, half, one)
    assert cublas is not None
    assert cublas.computed_in == [number, 68]
