"""Which of cuDNN's algorithms each pass of a convolution takes: the fastest that was measured, once in a process.

With `is_deterministic` it is the one that cuDNN's heuristics put first among those whose results are always the same
bits: what a measurement says may differ from run to run, and algorithms differ in their last bits.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import ONE, ZERO, Descriptor, Shape, address, ints
from dtrain.core.engines.engine import NotOffered

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Geometry:
    """A convolution's windows: one number per spatial axis each, and the type of what they see."""

    stride: Shape
    pad: Shape
    dilation: Shape
    group: int
    dtype: str


@dataclass(frozen=True)
class Choice:
    """An algorithm, the math that it is to be run with, the bytes of its workspace, and its time if measured."""

    algorithm: int
    math_type: int
    num_bytes: int
    time_ms: float = -1.0


@dataclass(frozen=True)
class Operand:
    """A shape, how cuDNN sees it, and whether channels lie last."""

    shape: Shape
    descriptor: Descriptor
    channels_last: bool


FOUND: dict[tuple[Any, ...], Choice] = {}  # by what has been asked for, of all engines of this process


class Pass:
    """One of a convolution's three passes, which makes c of a and b.

    direction: "Forward" (coarse values of fine ones and the weight), "BackwardData" (fine values of the weight and
    coarse ones) or "BackwardFilter" (the weight of fine and coarse values).
    """

    def __init__(
        self, engine: CudnnEngine, direction: str, geometry: Geometry, a: Operand, b: Operand, c: Operand
    ) -> None:
        self.engine = engine
        self.binding = engine.binding
        self.direction = direction
        self.geometry = geometry
        self.operands = a, b, c
        self.convolution = Descriptor(
            self.binding,
            "Convolution",
            "SetConvolutionNdDescriptor",
            len(geometry.stride),
            *map(ints, (geometry.pad, geometry.stride, geometry.dilation)),
            dnn.CROSS_CORRELATION,
            dnn.FLOAT32,
        )
        self.binding.call("SetConvolutionGroupCount", self.convolution, geometry.group)
        self._set_math(engine.math_type)
        self._choice: Choice | None = None
        self._workspace: Any = None  # kept while a graph may have its address

    def run(self, a: Any, b: Any, c: Any, adds: bool = False) -> None:
        """Overwrite the device array `c`, or add to it. Raises NotOffered where cuDNN has no algorithm."""
        choice = self.choose(a, b, None if adds else c)
        self._workspace = self.engine.lend(choice.num_bytes)
        of_a, of_b, of_c = (operand.descriptor for operand in self.operands)
        self.binding.run(
            f"Convolution{self.direction}",
            *(ONE, of_a, address(a), of_b, address(b), self.convolution, choice.algorithm),
            *(address(self._workspace), choice.num_bytes, ONE if adds else ZERO, of_c, address(c)),
        )

    def choose(self, a: Any, b: Any, c: Any = None) -> Choice:
        """Return the algorithm, found by running them all on these arrays where none has been found yet.

        c: is written over then; None: something else is. Raises NotOffered where there is none.
        """
        if self._choice is None:
            key = self._key()
            if key not in FOUND:
                FOUND[key] = self._recommend() if self.engine.is_deterministic else self._measure(a, b, c)
                log.debug("cudnn%s %s: %s", self.direction, key, FOUND[key])
            self._choice = FOUND[key]
            self._set_math(self._choice.math_type)
        return self._choice

    def _measure(self, a: Any, b: Any, c: Any) -> Choice:
        of_a, of_b, of_c = (operand.descriptor for operand in self.operands)
        if c is None:
            c = self.engine.xp.empty(math.prod(self.operands[2].shape), self.geometry.dtype)
        room = self._room()
        found = self._find(
            f"FindConvolution{self.direction}AlgorithmEx",
            *(of_a, address(a), of_b, address(b), self.convolution, of_c, address(c)),
            behind=(address(room), room.nbytes),
        )
        for one in found:
            if self._fits(one):
                return Choice(one.algorithm, one.math_type, one.num_bytes, one.time_ms)
        raise NotOffered(self._what())

    def _recommend(self) -> Choice:
        of_a, of_b, of_c = (operand.descriptor for operand in self.operands)
        name = f"GetConvolution{self.direction}Algorithm_v7"
        for one in self._find(name, of_a, of_b, self.convolution, of_c):
            if self._fits(one) and one.determinism == dnn.DETERMINISTIC:
                return Choice(one.algorithm, one.math_type, one.num_bytes)
        raise NotOffered(f"{self._what()} whose results are always the same bits")

    def _find(self, name: str, *arguments: Any, behind: tuple[Any, ...] = ()) -> list[dnn.Performance]:
        """Return what cuDNN says of each algorithm, the best first.

        Raises NotOffered where it has none, and where it takes the convolution for a mistake.
        """
        count = dnn.NUM_ALGORITHMS[self.direction]
        found, num_found = (dnn.Performance * count)(), ctypes.c_int()
        status = self.binding.try_to(name, *arguments, count, ctypes.byref(num_found), found, *behind)
        if dnn.BAD_PARAM <= status < dnn.NOT_SUPPORTED:
            raise NotOffered(f"that cudnn{name} understands: {self.geometry}")
        self.binding.check(status, name)
        return list(found[: num_found.value])

    def _fits(self, one: dnn.Performance) -> bool:
        return bool(one.status == 0 and one.num_bytes <= self.engine.workspace_bytes)

    def _room(self) -> Any:
        """Return a workspace as large as an algorithm within the limit wants, if there is as much memory.

        It is no lent one, which would stay: what is chosen mostly wants less.
        """
        xp = self.engine.xp
        for num_bytes in sorted(set(self._workspaces()), reverse=True):
            try:
                return xp.empty(max(num_bytes, 1), np.uint8)
            except xp.cuda.memory.OutOfMemoryError:
                continue
        return xp.empty(1, np.uint8)

    def _workspaces(self) -> Iterator[int]:
        """Yield how large a workspace each algorithm within the limit wants."""
        of_a, of_b, of_c = (operand.descriptor for operand in self.operands)
        size = ctypes.c_size_t()
        for algorithm in range(dnn.NUM_ALGORITHMS[self.direction]):
            status = self.binding.try_to(
                f"GetConvolution{self.direction}WorkspaceSize",
                *(of_a, of_b, self.convolution, of_c, algorithm, ctypes.byref(size)),
            )
            if status == 0 and size.value <= self.engine.workspace_bytes:
                yield size.value

    def _set_math(self, math_type: int) -> None:
        self.binding.call("SetConvolutionMathType", self.convolution, math_type)

    def _key(self) -> tuple[Any, ...]:
        engine, binding = self.engine, self.binding
        shapes = tuple((operand.shape, operand.channels_last) for operand in self.operands)
        asked = engine.math_type, engine.is_deterministic, engine.workspace_bytes
        return binding.library.version, binding.device, self.direction, self.geometry, shapes, asked

    def _what(self) -> str:
        limit = self.engine.workspace_bytes
        return f"{self.direction} of {self.geometry} within a workspace of {limit} bytes"
