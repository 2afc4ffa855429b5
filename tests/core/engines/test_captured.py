"""What played devices refuse to a captured iteration, and what they let pass, as a GPU and cupy do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cupy.kernels import Kernel
from tests.played.cupy import PlayedCupy
from tests.played.host_traffic import HostTraffic, forbid_host

Do = Callable[[Any, Any, Any], Any]  # with cupy, values (3, 4) and three indices

REFUSED: dict[str, tuple[Do, str]] = {
    "get": (lambda xp, x, i: x.get(), "got get"),
    "set": (lambda xp, x, i: x.set(np.zeros((3, 4))), "got set"),
    "asnumpy": (lambda xp, x, i: xp.asnumpy(x), "got get"),
    "asarray": (lambda xp, x, i: xp.asarray(np.zeros(3)), "asarray of a ndarray"),
    "float": (lambda xp, x, i: float(x.sum()), "an array as a float"),
    "bool": (lambda xp, x, i: x.any() or x, "an array as a bool"),
    "index": (lambda xp, x, i: range(4)[i[0]], "an array as an index"),
    "loop": (lambda xp, x, i: list(x), "a loop over an array"),
    "mask": (lambda xp, x, i: x[x > 0], "a mask as an index"),
    "list": (lambda xp, x, i: x[[0, 2]], "a list as an index"),
    "number into places": (lambda xp, x, i: x.__setitem__(i, 0.0), "a float as values"),
    "sort": (lambda xp, x, i: xp.argsort(x), "argsort"),
    "method": (lambda xp, x, i: x.nonzero(), "nonzero of an array"),
    "many": (lambda xp, x, i: xp.concatenate([x] * 9), "concatenate of 9 arrays"),
    "kernel": (
        lambda xp, x, i: Kernel(xp, "statistics").launch((1,), (1,)),
        "first launch of the kernel statistics",
    ),
}
PRODUCTS: dict[str, Do] = {
    "operator": lambda xp, x, i: x @ x.T,
    "matmul": lambda xp, x, i: xp.matmul(x, x.T, out=xp.zeros((3, 3))),
    "dot": lambda xp, x, i: xp.dot(x, x.T),
    "method": lambda xp, x, i: x.dot(x.T),
    "tensordot": lambda xp, x, i: xp.tensordot(x, x, 2),
    "einsum": lambda xp, x, i: xp.einsum("ij,ij->i", x, x),
    "numpy": lambda xp, x, i: np.matmul(x, x.T),
}
PASSED: dict[str, Do] = {
    "number into a slice": lambda xp, x, i: x.__setitem__(slice(1), 2.0),
    "array into places": lambda xp, x, i: x.__setitem__(i, x[i] * 2),
    "where": lambda xp, x, i: xp.where(x > 0, 1.0, x),
    "asarray of what is there": lambda xp, x, i: xp.asarray(x),
    "new": lambda xp, x, i: xp.zeros(3) + xp.arange(3),
    "few": lambda xp, x, i: xp.concatenate([x] * 8),
}


@pytest.mark.parametrize("name", REFUSED)
def test_forbid_host_refuses(name: str) -> None:
    do, words = REFUSED[name]
    xp = PlayedCupy("cupy")
    x, indices = xp.ones((3, 4)), xp.arange(3)
    with forbid_host(), pytest.raises(HostTraffic, match=words):
        do(xp, x, indices)


@pytest.mark.parametrize("name", PRODUCTS)
def test_forbid_host_refuses_a_product_as_cupy_does(name: str) -> None:
    xp = PlayedCupy("cupy")
    x, indices = xp.ones((3, 4)), xp.arange(3)
    PRODUCTS[name](xp, x, indices)
    with forbid_host(), pytest.raises(NotImplementedError, match="calling cuBLAS API during stream capture"):
        PRODUCTS[name](xp, x, indices)


@pytest.mark.parametrize("name", PASSED)
def test_forbid_host_lets_pass(name: str) -> None:
    xp = PlayedCupy("cupy")
    x, indices = xp.ones((3, 4)), xp.arange(3)
    with forbid_host():
        PASSED[name](xp, x, indices)


def test_forbid_host_ends_with_its_body() -> None:
    x = PlayedCupy("cupy").ones(())
    with forbid_host():
        pass
    assert float(x) == 1
