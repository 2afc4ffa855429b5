"""The kernels for 16 bits: bit for bit what numpy and ml_dtypes give, and compiled by NVRTC, which needs no GPU."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from dtrain.dist import nccl_kernels
from dtrain.dist.communicator import BFLOAT16, HALVES
from dtrain.dist.nccl_kernels import HalfKernels, read_source
from tests.played.cupy import play_cupy

FLOAT16 = np.dtype(np.float16)
MACROS = {FLOAT16: ("-DHALF=Half", "-DIS_SCALED=1"), BFLOAT16: ("-DHALF=Bfloat16", "-DIS_SCALED=0")}
OPTIONS_OF_CUPY = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")  # which it adds to ours


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the played cupy, or the real one where tests are told so."""
    return play_cupy(monkeypatch)


def every_kind() -> np.ndarray:
    """Return float32 of every exponent and sign, ties and their neighbours, infinite and NaN."""
    ties = (np.arange(2**16, dtype=np.uint32) << 16)[:, None] + np.array(
        [0, 0x7FFF, 0x8000, 0x8001], np.uint32
    )
    halves = np.arange(0, 2**16, 7, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (halves[:-1].astype(np.float64) + halves[1:].astype(np.float64)) / 2
    with np.errstate(invalid="ignore"):
        return np.concatenate([ties.ravel().view(np.float32), halves, between.astype(np.float32)])


def same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Assert that arrays have the same bits where they are numbers, and NaN in the same places."""
    are_nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), are_nan)
    width = {2: np.uint16, 4: np.uint32}[expected.dtype.itemsize]
    np.testing.assert_array_equal(actual.view(width)[~are_nan], expected.view(width)[~are_nan])


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
def test_compress_rounds_every_kind_of_value_to_bfloat16_as_it_is(cupy: Any) -> None:
    values = every_kind()
    halves = cupy.zeros(values.size, BFLOAT16)
    HalfKernels(cupy, BFLOAT16).compress(cupy.asarray(values), halves, 0.25)  # has the range: no scale
    same_bits(halves.get(), values.astype(BFLOAT16))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize("scale", [1, 1 / 2, 1 / 3])
def test_compress_to_float16_multiplies_in_float32_first(cupy: Any, scale: float) -> None:
    values = every_kind()
    halves = cupy.zeros(values.size, FLOAT16)
    HalfKernels(cupy, FLOAT16).compress(cupy.asarray(values), halves, scale)
    same_bits(halves.get(), (values * np.float32(scale)).astype(FLOAT16))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize(("dtype", "scale", "factor"), [(FLOAT16, 3, 3), (BFLOAT16, 3, 1)], ids=str)
def test_decompress_of_all_values_is_exact(cupy: Any, dtype: Any, scale: float, factor: float) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(dtype)
    values = cupy.zeros(halves.size, np.float32)
    HalfKernels(cupy, dtype).decompress(cupy.asarray(halves), values, scale)
    same_bits(values.get(), halves.astype(np.float32) * np.float32(factor))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_sum_parts_adds_in_float32_in_order_and_rounds_once(cupy: Any, dtype: Any, num_parts: int) -> None:
    random = np.random.default_rng(num_parts)
    sizes = 10.0 ** random.uniform(-4, 4, (num_parts, 4001))
    parts = (random.standard_normal(sizes.shape) * sizes).astype(dtype)
    sums = cupy.zeros(4001, dtype)
    HalfKernels(cupy, dtype).sum_parts(cupy.asarray(parts), sums)
    total = parts[0].astype(np.float32)
    for part in parts[1:]:
        total += part.astype(np.float32)
    same_bits(sums.get(), total.astype(dtype))


def test_kernels_of_no_values_launch_nothing_and_of_many_go_round(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = HalfKernels(cupy, FLOAT16)
    kernels.compress(cupy.zeros(0, np.float32), cupy.zeros(0, FLOAT16), 1)
    monkeypatch.setattr(nccl_kernels, "_MAX_BLOCKS", 2)
    values, halves = np.arange(1300, dtype=np.float32), cupy.zeros(1300, FLOAT16)
    kernels.compress(cupy.asarray(values), halves, 1)
    assert (halves.get() == values).all()


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_kernels_are_what_nvrtc_compiles(dtype: Any, architecture: str) -> None:
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="cupy is not installed")
    try:
        nvrtc.getVersion()
    except (RuntimeError, OSError, ImportError) as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    given: list[Any] = []

    class Cupy:
        @staticmethod
        def RawKernel(*args: Any) -> Any:  # noqa: N802
            given.append(args)

    HalfKernels(Cupy, dtype)
    names = {name for _, name, _ in given}
    assert names == set(re.findall(r"__global__ void (\w+)\(", read_source()))
    ((source, options),) = {(source, options) for source, _, options in given}
    assert options == ("--fmad=false", *MACROS[dtype])
    program = nvrtc.createProgram(source, "halves.cu", [], [])
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={architecture}", *OPTIONS_OF_CUPY, *options))
        code = nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)
    assert all(f".text.{name}\0".encode() in code for name in names)
