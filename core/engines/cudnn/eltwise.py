"""Sums of blobs where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.epilogue import add, pass_gradient
from dtrain.core.engines.cudnn.memory import ChannelsLast, Memories, bits
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import EltwiseSpec, FusedSumSpec, Shape

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class EltwiseSum:
    """Carry out an EltwiseSpec that is a plain sum, with `relu` of which what is positive is left."""

    def __init__(self, spec: EltwiseSpec, engine: CudnnEngine, relu: bool = False) -> None:
        if spec.operation != "SUM" or set(spec.coeffs) != {1.0} or len(spec.coeffs) < 2:
            raise NotOffered("but plain sums")
        if 0 in spec.shape:
            raise NotOffered(f"of shape {spec.shape}")
        self.shape = spec.shape
        self.engine = engine
        self.memories = engine.memories
        self.relu = relu

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        memory = memory_of(self.memories, xs, self.shape)
        first, *others = (x.read_data(memory) for x in xs)
        y_data = y.write_data(memory)
        for k, other in enumerate(others, start=1):
            add(self.engine, first, other, y_data, self.relu and k == len(others))
            first = y_data

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Give y.diff, or what relu lets through of it, to each wanted x."""
        targets = [x for x, is_wanted in zip(xs, wanted, strict=True) if is_wanted]
        if not targets:
            return
        memory = self.memories.of(y.data_tensor if self.relu else y.diff_tensor, self.shape)
        source = y.read_diff(memory)
        if self.relu:
            first = targets.pop(0).write_diff(memory)
            pass_gradient(self.engine, y.read_data(memory), source, first)
            source = first
        for target in targets:
            bits(target.write_diff(memory))[...] = bits(source)


class FusedSum(EltwiseSum):
    """Carry out a FusedSumSpec."""

    def __init__(self, spec: FusedSumSpec, engine: CudnnEngine) -> None:
        super().__init__(spec.sum, engine, relu=True)


def memory_of(memories: Memories, xs: Sequence[Blob], shape: Shape) -> DeviceMemory | ChannelsLast:
    """Return the memory with channels last if any x lies there, else the plain one."""
    found = (memories.of(x.data_tensor, shape) for x in xs)
    return next((memory for memory in found if isinstance(memory, ChannelsLast)), memories.plain)
