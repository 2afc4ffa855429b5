from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dtrain.core.engines.cupy.cublas import Cublas
from dtrain.core.engines.cupy.matrix import Matrices
from tests.played.cublas import PlayedCublas

HALVES = ml_dtypes.bfloat16, np.float16
TOLERANCES = {np.float64: 1e-12, np.float32: 1e-5, **dict.fromkeys(HALVES, 1e-5)}


@pytest.fixture
def matrices(cupy: Any) -> Matrices:
    """Return strict products."""
    return Matrices(Cublas(cupy), allows_tf32=False)


def draw(*shape: int) -> np.ndarray:
    """Return values that have few bits, and so are the same in each type."""
    values = np.random.default_rng(5 + sum(shape)).standard_normal(shape)
    return values.astype(ml_dtypes.bfloat16).astype(np.float64)


def lay(cupy: Any, values: np.ndarray, dtype: Any, by_columns: bool = False) -> Any:
    """Return values on the device, by rows or by columns."""
    if by_columns:
        return lay(cupy, values.swapaxes(-2, -1), dtype).swapaxes(-2, -1)
    return cupy.asarray(np.ascontiguousarray(values).astype(dtype))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("stack", [(), (4,), (1,)], ids=str)
@pytest.mark.parametrize(("a_by_columns", "b_by_columns"), list(itertools.product((False, True), repeat=2)))
def test_multiply_in_each_type_is_numpys_product(
    cupy: Any, matrices: Matrices, dtype: Any, stack: tuple[int, ...], a_by_columns: bool, b_by_columns: bool
) -> None:
    a, b, before = draw(*stack, 3, 4), draw(*stack, 4, 5), draw(*stack, 3, 5)
    operands = lay(cupy, a, dtype, a_by_columns), lay(cupy, b, dtype, b_by_columns)
    out = cupy.asarray(before.astype(np.float32 if dtype in HALVES else dtype))
    tolerance = TOLERANCES[dtype]
    matrices.multiply(*operands, out, adds=True)
    np.testing.assert_allclose(out.get(), a @ b + before, rtol=tolerance, atol=tolerance)
    out.fill(np.nan)
    matrices.multiply(*operands, out)
    np.testing.assert_allclose(out.get(), a @ b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "place",
    [
        np.s_[:, :3, :4],  # gaps between rows
        np.s_[::2, :3, :4],  # and between matrices
        np.s_[:, 1:4, ::2],  # between values, which are copied
        np.s_[:, ::-1, 1:5],  # backwards, which is copied too
        np.s_[::-1, :3],
        np.s_[:, :1, ::2],  # one row that is a column of what lies by columns
        np.s_[:, 1:, 3:4],  # one column
        np.s_[:, 1:2, 3:4],
        np.s_[:1, :3],
    ],
    ids=str,
)
@pytest.mark.parametrize("is_left", [True, False], ids=["left", "right"])
def test_multiply_of_views_with_gaps_is_numpys_product(
    cupy: Any, matrices: Matrices, place: Any, is_left: bool
) -> None:
    whole = draw(4, 5, 8)
    part, of_device = whole[place], cupy.asarray(whole)[place]
    other = draw(len(part), part.shape[2], 3) if is_left else draw(len(part), 2, part.shape[1])
    given = of_device, cupy.asarray(other)
    exact, operands = (part @ other, given) if is_left else (other @ part, given[::-1])
    out = cupy.empty(exact.shape, np.float64)
    matrices.multiply(*operands, out)
    np.testing.assert_allclose(out.get(), exact, rtol=1e-12, atol=1e-12)
    one = cupy.empty(exact.shape[1:], np.float64)
    matrices.multiply(operands[0][0], operands[1][0], one)
    np.testing.assert_allclose(one.get(), exact[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shapes", [((2, 0), (0, 3)), ((0, 2), (2, 3)), ((0, 2, 2), (0, 2, 3))], ids=str)
def test_multiply_of_no_values_is_zero_or_adds_nothing(cupy: Any, matrices: Matrices, shapes: Any) -> None:
    a, b = (cupy.zeros(shape, np.float32) for shape in shapes)
    out = cupy.ones((*a.shape[:-1], b.shape[-1]), np.float32)
    matrices.multiply(a, b, out, adds=True)
    np.testing.assert_array_equal(out.get(), 1)
    matrices.multiply(a, b, out)
    np.testing.assert_array_equal(out.get(), 0)


@pytest.mark.parametrize(("allows_tf32", "number"), [(True, 77), (False, 68)])
def test_multiply_of_float32_is_rounded_only_if_allowed(
    cupy: Any, played_cublas: PlayedCublas, allows_tf32: bool, number: int
) -> None:
    matrices = Matrices(Cublas(cupy), allows_tf32)
    for dtype in (np.float32, np.float16, np.float64):
        one = cupy.ones((1, 1), dtype)
        matrices.multiply(one, one, cupy.ones((1, 1), dtype))
    assert played_cublas.computed_in == [number, 68, 70]
