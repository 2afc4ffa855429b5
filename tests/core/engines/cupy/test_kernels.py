"""Every kernel is compiled by NVRTC, which needs no GPU, and launched over whatever count by the same grid."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cupy.kernels import OPTIONS, Kernel, read_source

VARIANTS = {
    "batch_norm": [{"VALUE": "Bfloat16", "PACK": "8"}, {"VALUE": "Half", "PACK": "1"}],
    "channel_sums": [{"VALUE": "Bfloat16", "PACK": "8"}, {"VALUE": "Half", "PACK": "1"}],
    "convert": [{"FROM": "float", "TO": "Half"}, {"FROM": "Bfloat16", "TO": "float"}],
    "dropout": [{"VALUE": "float", "NUMBER": "float"}, {"VALUE": "double", "NUMBER": "double"}],
    "epilogue": [{"VALUE": "Bfloat16"}],
    "gradients": [{}],
    "lrn": [{"VALUE": "Bfloat16", "PACK": "8", "REACH": "2"}, {"VALUE": "Half", "PACK": "1", "REACH": "0"}],
    "pooling": [
        {"VALUE": "float", "WINNER": "unsigned char", "CHANNELS_LAST": "0", "PACK": "1"},
        {"VALUE": "Half", "WINNER": "int", "CHANNELS_LAST": "1", "PACK": "8"},
    ],
    "row_sums": [{"VALUE": "float"}, {"VALUE": "double"}],
    "running_sums": [{"VALUE": "float"}, {"VALUE": "double"}],
    "send": [{}],
    "softmax_loss": [{"VALUE": "float"}, {"VALUE": "double"}],
    "statistics": [{}],
    "transform": [{"VALUE": "float"}],
    "update": [{}],
}
# The oldest one is what CUDA 13 still knows.
ARCHITECTURES = ["sm_75", "sm_80", "sm_90"]
OPTIONS_OF_CUPY = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")  # which it adds to ours


def test_variants_name_every_file() -> None:
    names = {path.name for path in (files("dtrain.core.engines.cupy") / "kernels").iterdir()}
    assert {name.removesuffix(".cu") for name in names if name.endswith(".cu")} == VARIANTS.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", VARIANTS)
def test_kernels_are_what_nvrtc_compiles(name: str, architecture: str) -> None:
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="cupy is not installed")
    try:
        nvrtc.getVersion()
    except (RuntimeError, OSError, ImportError) as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    source = read_source(f"{name}.cu")
    for macros in VARIANTS[name]:
        defines = (f"-D{macro}={text}" for macro, text in macros.items())
        program = nvrtc.createProgram(source, f"{name}.cu", [], [])
        try:
            nvrtc.compileProgram(
                program, (f"--gpu-architecture={architecture}", *OPTIONS_OF_CUPY, *OPTIONS, *defines)
            )
            code = nvrtc.getCUBIN(program)
        except nvrtc.NVRTCError:
            pytest.fail(nvrtc.getProgramLog(program))
        finally:
            nvrtc.destroyProgram(program)
        for kernel in re.findall(r"__global__ void (\w+)\(", source):
            assert f".text.{kernel}\0".encode() in code


def test_read_source_puts_included_files_in_place() -> None:
    assert "#include" not in read_source("convert.cu")
    assert read_source("values.cuh") in read_source("convert.cu")


@pytest.mark.parametrize("count", [0, 1, 256, 257, 256 * 65535 + 1])
def test_run_starts_a_thread_for_each_up_to_the_largest_grid(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    launches: list[Any] = []

    class Cupy:
        @staticmethod
        def RawKernel(code: str, name: str, options: tuple[str, ...]) -> Any:  # noqa: N802
            return lambda *args: launches.append(args)

    Kernel(Cupy, "cast", "convert", FROM="float", TO="float").run(count, "x", np.int64(count))
    blocks = min(-(-count // 256), 65535)
    assert launches == ([((blocks,), (256,), ("x", count))] if count else [])


def test_run_of_more_than_all_threads_goes_on_to_the_next(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.core.engines.cupy.kernels._MAX_BLOCKS", 2)
    x, y = cupy.asarray(np.arange(1300, dtype=np.float32)), cupy.zeros(1300, np.float32)
    Kernel(cupy, "cast", "convert", FROM="float", TO="float").run(1300, x, y, np.int64(1300))
    assert (y.get() == x.get()).all()
