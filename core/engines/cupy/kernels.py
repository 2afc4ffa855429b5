"""Kernels of our own, for what no library does in one pass: the functions of the files in kernels/, in CUDA's C++.

They are launched on cupy's current stream, read nothing but device memory and what a launch is told, and so can be
captured into a graph. Multiplications and additions are not contracted: results are the same bits as numpy's, except
that floats below 2⁻¹²⁶ are taken for 0, as in all that cupy compiles.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

# dist/ has a kernel too, and the file that all of them include.
_FOLDERS = (files(__package__) / "kernels", files("dtrain.dist") / "kernels")

# What a value of a dtype is called in values.cuh, and what is computed in.
C_TYPES = {"float16": "Half", "bfloat16": "Bfloat16", "float32": "float", "float64": "double"}
NUMBERS = {**dict.fromkeys(C_TYPES, np.float32), "float64": np.float64}

OPTIONS = ("--fmad=false",)
NUM_THREADS = 256  # of a block
_MAX_BLOCKS = 65535

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


@cache
def read_source(name: str) -> str:
    """Return the text of a file in kernels/, with the files that it includes in place."""
    place = next(folder / name for folder in _FOLDERS if (folder / name).is_file())
    text = place.read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: read_source(found[1]), text)


class Kernel:
    """A function of a file in kernels/, compiled for the current GPU when it first runs and then kept by cupy.

    Arguments:
        cupy: the module. name: of the function. source: of the file, without its ending; by default the same.
        macros: what the file leaves open, such as VALUE="float".
    """

    def __init__(self, cupy: Any, name: str, source: str = "", **macros: str) -> None:
        options = (*OPTIONS, *(f"-D{macro}={text}" for macro, text in macros.items()))
        self._kernel = cupy.RawKernel(read_source(f"{source or name}.cu"), name, options)

    def run(self, count: int, *args: Any) -> None:
        """Launch threads for `count` pieces of work, of which each has its share, whatever their number.

        args: cupy's arrays without gaps, and numpy's scalars of the very types of the function's parameters.
        """
        if count:
            blocks = min(-(-count // NUM_THREADS), _MAX_BLOCKS)
            self._kernel((blocks,), (NUM_THREADS,), args)

    def launch(self, grid: tuple[int, ...], block: tuple[int, ...], *args: Any) -> None:
        """Launch `grid` blocks of `block` threads; args as for `run`."""
        self._kernel(grid, block, args)
