"""Operations that take values where they lie, and leave them there."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.binding import Descriptor
from dtrain.core.engines.cudnn.memory import ChannelsLast, as_images
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import Shape, UnaryOperation

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

_MOST_AXES = 5


class ByMemory:
    """Knows how cuDNN sees values of `shape` (N, C, spatial…) in each memory in which they come."""

    def __init__(self, engine: CudnnEngine, shape: Shape) -> None:
        if not 2 <= len(shape) <= _MOST_AXES:
            raise NotOffered(f"of {len(shape)} axes")
        self.engine = engine
        self.binding = engine.binding
        self.memories = engine.memories
        self.shape = as_images(shape)
        self._tensors: dict[bool, Descriptor] = {}
        self.tensor(self.memories.plain)

    def for_data(self, x: Blob) -> DeviceMemory | ChannelsLast:
        """Return where to work on the data of x: where they lie."""
        return self.memories.of(x.data_tensor, self.shape)

    def tensor(self, memory: DeviceMemory | ChannelsLast) -> Descriptor:
        """Return the descriptor of values there."""
        last = isinstance(memory, ChannelsLast)
        if last not in self._tensors:
            self._tensors[last] = self.binding.tensor(self.shape, self.memories.dtype(memory), last)
        return self._tensors[last]


class Unary(ByMemory):
    """An operation of one blob, which the fallback engine takes over where cuDNN refuses it when it runs.

    spec: what it carries out.
    """

    def __init__(self, engine: CudnnEngine, spec: Any, shape: Shape) -> None:
        super().__init__(engine, shape)
        self.spec = spec
        self._other: UnaryOperation | None = None

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""
        if self._other is None:
            try:
                self.run_forward(x, y)
            except NotOffered as limits:
                kind = " ".join([type(self).__name__, *map(str, limits.args)])
                self._other = self.engine.ask_fallback(self.spec, kind)
            else:
                return
        self._other.forward(x, y)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff."""
        if self._other is None:
            self.run_backward(x, y)
        else:
            self._other.backward(x, y)

    @abstractmethod
    def run_forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data by cuDNN. Raises NotOffered before anything is written."""

    @abstractmethod
    def run_backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff by cuDNN."""
