"""Dropout on a GPU: the mask that the host would draw, drawn where it is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cupy.kernels import C_TYPES, NUMBERS, Kernel
from dtrain.core.engines.operations import DropoutSpec
from dtrain.core.engines.reference.dropout import Dropout as HostDropout

_BLOCK_SIZE = 8  # values of 32 bits that Philox4x64 draws at once


class Dropout(HostDropout):
    """Carry out a DropoutSpec by a kernel that draws as numpy's Philox does, in backward again.

    In a replayed graph, where no generator is asked, masks are those of `engine.replays` passes later. What other
    generators than those of core/random_streams.py give is drawn on the host.
    """

    def __init__(self, spec: DropoutSpec, engine: Any) -> None:
        super().__init__(spec, engine)
        self._engine = engine
        self._kernels: dict[str, Kernel] = {}
        self._stream: list[np.uint64] | None = (
            None  # key and counter of the last forward; None: drawn on the host
        )

    def forward(self, x: Blob, y: Blob, random: np.random.Generator) -> None:
        """Draw a mask and compute y = x·mask·scale."""
        self._stream = take_stream(random, x.count)
        if self._stream is None:
            super().forward(x, y, random)
        else:
            self._run(x.read_data(self.memory), y.write_data(self.memory))

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute dx = dy·mask·scale."""
        if self._stream is None:
            super().backward(x, y)
        else:
            self._run(y.read_diff(self.memory), x.write_diff(self.memory))

    def _run(self, source: Any, target: Any) -> None:
        assert self._stream is not None
        dtype = source.dtype.name
        number = NUMBERS[dtype]
        if dtype not in self._kernels:
            c_number = C_TYPES[np.dtype(number).name]
            self._kernels[dtype] = Kernel(self.xp, "dropout", VALUE=C_TYPES[dtype], NUMBER=c_number)
        self._kernels[dtype].run(
            -(-source.size // _BLOCK_SIZE),
            *(source, target, np.int64(source.size), np.float32(self.spec.ratio), number(self.spec.scale)),
            *self._stream,
            self._engine.replays,
        )


def take_stream(random: np.random.Generator, count: int) -> list[np.uint64] | None:
    """Return the key (2) and counter (4) by which `random` draws the next values, and advance it by `count` of them.

    None, and nothing drawn, for a generator that is no Philox or in the middle of a block.
    """
    bits = random.bit_generator
    if not isinstance(bits, np.random.Philox):
        return None
    state: Any = bits.state
    if state["has_uint32"] or state["buffer_pos"] < len(state["buffer"]):
        return None
    bits.advance(count // _BLOCK_SIZE)
    random.random(count % _BLOCK_SIZE, dtype=np.float32)
    return [*state["state"]["key"], *state["state"]["counter"]]
