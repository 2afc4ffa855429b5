"""cupy.RawKernel for want of a GPU: the same source, compiled for the host by g++ and run over the whole grid.

As strict as a GPU is not: every argument must be of the very type of its parameter, and arrays without gaps.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.played.graphs import Place, record
from tests.played.host_traffic import refuse_host

HEADER = Path(__file__).with_name("cuda.h")
BUILT = Path(__file__).resolve().parents[2] / "build" / "played_kernels"
# Contraction off as by --fmad=false; FORTIFY off since threads with barriers jump between stacks; -Bsymbolic since a
# kernel may have the name of a function that is loaded already (compress: zlib's).
GXX_OPTIONS = (
    *("-O1", "-std=c++17", "-fPIC", "-shared", "-w"),
    *("-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-Wl,-Bsymbolic"),
)

# dtypes of the types that kernels' parameters have, or point to
DTYPES = {
    "unsigned char": "uint8",
    "unsigned short": "uint16",
    "unsigned int": "uint32",
    "int": "int32",
    "long": "int64",
    "long long": "int64",
    "unsigned long long": "uint64",
    "float": "float32",
    "float4": "float32",
    "Factors": "float32",
    "double": "float64",
    "Half": "float16",
    "Bfloat16": "bfloat16",
}


class PlayedRawKernel:
    """A kernel as cupy.RawKernel makes it, and as it is called."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        assert isinstance(options, tuple)
        assert "--fmad=false" in options  # the host's compiler is told the same
        self._name = name
        self._code = code
        self._is_loaded = False
        self._macros = tuple(option for option in options if option.startswith("-D"))

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        assert all(type(size) is int and size > 0 for size in (*grid, *block))
        assert np.prod(block) <= 1024
        assert all(size <= 65535 for size in grid[1:])
        if not self._is_loaded:
            refuse_host(f"the first launch of the kernel {self._name}")
            self._is_loaded = True
        library = _compile(self._code, self._macros)
        types_of = library[f"types_of_{self._name}"]
        types_of.restype = ctypes.c_char_p
        types = types_of().decode().split(";")[:-1]
        assert len(args) == len(types), f"{self._name} takes {types}"
        values = [_c_value(*pair) for pair in zip(args, types, strict=True)]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = [*grid, *(1,) * (3 - len(grid)), *block, *(1,) * (3 - len(block))]
        launch, grid_and_block = library[f"launch_{self._name}"], (ctypes.c_uint * 6)(*sizes)
        launch(addresses, grid_and_block)
        places = [Place(arg._values) for arg in args if not isinstance(arg, np.generic)]
        record(lambda: ([place.array() for place in places], launch(addresses, grid_and_block), values))


def _c_value(arg: Any, type_name: str) -> Any:
    """Return `arg` as ctypes has it; the type of the parameter says what it must be."""
    pointee = type_name.removesuffix("*").removesuffix(" const")
    assert arg.dtype.name == DTYPES[pointee], f"{type_name} for {arg.dtype}"
    if type_name.endswith("*"):
        assert not isinstance(arg, np.ndarray | np.generic), "a host array has no business here"
        assert arg.flags.c_contiguous
        return ctypes.c_void_p(arg._values.ctypes.data)
    assert isinstance(arg, np.generic), f"{type_name} must be a scalar of numpy's"
    return np.ctypeslib.as_ctypes_type(arg.dtype)(arg.item())


@cache
def _compile(code: str, macros: tuple[str, ...]) -> ctypes.CDLL:
    """Return the library of all kernels in `code`; what was compiled once is kept in build/."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed, by which kernels are played")
    names = re.findall(r"__global__ void (\w+)\(", code)
    barriers = ["#define HAS_BARRIERS"] if "__syncthreads" in code else []
    header = HEADER.read_text(encoding="utf-8")
    text = "\n".join([*barriers, header, code, *(f"PLAYED({name})" for name in names)])
    digest = hashlib.sha256("\n".join((text, *macros, *GXX_OPTIONS)).encode()).hexdigest()[:24]
    built = BUILT / f"{digest}.so"
    if not built.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        unfinished = built.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        command = ["g++", *GXX_OPTIONS, *macros, "-x", "c++", "-", "-o", str(unfinished)]
        run = subprocess.run(command, input=text, text=True, capture_output=True, timeout=120)
        assert run.returncode == 0, run.stderr
        unfinished.replace(built)
    return ctypes.PyDLL(str(built))  # which keeps the GIL: a kernel's place is the library's, not a thread's
