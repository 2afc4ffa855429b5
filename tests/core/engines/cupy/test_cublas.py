from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cupy import cublas
from dtrain.core.engines.cupy.graph import Stage
from dtrain.core.engines.cupy.matrix import Matrices
from dtrain.core.errors import UserError
from dtrain.dist.cupy_library import load_cupy
from dtrain.dist.errors import LaunchError
from tests.played.cublas import PlayedCublas

SITE_PACKAGES = Path(np.__file__).parents[1]


@pytest.fixture
def header() -> str:
    """Return the text of cuBLAS's header, from the wheel."""
    found = [*SITE_PACKAGES.glob("nvidia/cu*/include/cublas_api.h")]
    if not found:
        pytest.skip("cuBLAS's headers are not installed")
    return found[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", cublas.PARAMETERS)
def test_parameters_of_each_function_are_those_of_the_header(header: str, name: str) -> None:
    found = re.search(rf"^cublasStatus_t CUBLASWINAPI cublas{name}\(([^;]*)\);", header, re.MULTILINE)
    assert found is not None
    letters = ""
    for parameter in found[1].split(","):
        kind = parameter.split()[0 if "const" not in parameter else 1]
        is_address = "*" in parameter or kind in ("cublasHandle_t", "cudaStream_t")
        letters += "p" if is_address else {"size_t": "z", "long": "l"}.get(kind, "i")
    assert letters == cublas.PARAMETERS[name]


def test_load_library_returns_that_of_the_installed_cupy() -> None:
    try:
        cupy = load_cupy()
    except LaunchError:
        pytest.skip("cupy is not installed")
    if not [*SITE_PACKAGES.glob("nvidia/cu*/lib/libcublas.so.*")]:
        pytest.skip("cuBLAS is not installed as a wheel")
    library = cublas.load_library(cupy)
    assert all(hasattr(library, f"cublas{name}") for name in cublas.PARAMETERS)


def test_load_library_without_cublas_says_what_to_install() -> None:
    cuda = SimpleNamespace(cublas=None, runtime=SimpleNamespace(runtimeGetVersion=lambda: 99000))
    with pytest.raises(UserError, match=r"needs cuBLAS, got none \(libcublas.so.99"):
        cublas.load_library(SimpleNamespace(cuda=cuda))


def test_multiply_gives_the_workspace_again_with_each_stream(
    cupy: Any, played_cublas: PlayedCublas, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = Matrices(cublas.Cublas(cupy), False)
    one, out = cupy.ones((1, 1), np.float32), cupy.zeros((1, 1), np.float32)
    for pointer in (0, 8, 8, 0):
        monkeypatch.setattr(
            cupy.cuda,
            "get_current_stream",
            lambda pointer=pointer: SimpleNamespace(ptr=pointer),
            raising=False,
        )
        matrices.multiply(one, one, out, adds=True)
    assert [stream or 0 for stream in played_cublas.streams] == [0, 8, 0]
    assert out.get().item() == 4


def test_multiply_that_fails_says_what_cublas_says(cupy: Any, played_cublas: PlayedCublas) -> None:
    one = cupy.ones((1, 1), np.float32)
    matrices = Matrices(cublas.Cublas(cupy), True)
    with pytest.raises(cublas.CublasError, match="cublasGemmEx must succeed, got AssertionError"):
        matrices.multiply(one, one.astype(np.float16), one)
    stack = one.reshape(1, 1, 1)
    with pytest.raises(
        cublas.CublasError, match="cublasGemmStridedBatchedEx must succeed, got AssertionError"
    ):
        matrices.multiply(stack, stack.astype(np.float16), stack)


@pytest.mark.parametrize("stack", [(), (2,)], ids=["matrices", "stacks"])
def test_multiply_becomes_part_of_a_graph(cupy: Any, stack: tuple[int, ...]) -> None:
    multiply, random = Matrices(cublas.Cublas(cupy), False).multiply, np.random.default_rng(3)
    a, b = random.random((*stack, 3, 4)), random.random((*stack, 4, 5))
    left, right = cupy.asarray(a), cupy.asarray(b)
    out, stage = cupy.zeros((*stack, 3, 5), np.float64), Stage(cupy)
    with stage.entered():
        multiply(left, right, out)  # makes the handle
    graph = stage.capture(lambda: multiply(left, right, out, adds=True))
    for _ in range(2):
        graph.replay()
    cupy.cuda.get_current_stream().synchronize()
    np.testing.assert_allclose(out.get(), 3 * (a @ b), rtol=1e-12)
