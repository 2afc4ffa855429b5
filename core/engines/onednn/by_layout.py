"""Operations that take values in the layout in which they come, and leave them in it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import Shape
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

T = TypeVar("T")


class ByLayout(Generic[T]):
    """Keeps one T, made of primitives, for each layout in which x has come; nearly always there is one.

    shape: that of x as oneDNN sees it. otherwise: where x goes from layouts for which there is no fast code.
    """

    def __init__(self, engine: OneDnnEngine, shape: Shape, otherwise: Memory = HOST) -> None:
        self.engine = engine
        self.layouts = engine.layouts
        self.binding = engine.binding
        self.shape = shape
        self.otherwise = otherwise
        self._made: dict[Memory, T] = {}

    def for_data(self, x: Blob) -> T:
        """Return what works on the data of x, where they lie now if it can."""
        return self.made_for(self.layouts.of(x.data_tensor, self.shape))

    def made_for(self, memory: Memory) -> T:
        """Return what works on values in `memory`, or in `otherwise`. Raises NotOffered if there is neither."""
        made = self._made.get(memory)
        if made is None:
            try:
                made = self.make(memory)
            except NotOffered:
                if memory is self.otherwise:
                    raise
                made = self.made_for(self.otherwise)
            self._made[memory] = made
        return made

    @abstractmethod
    def make(self, memory: Memory) -> T:
        """Return what works on values in `memory`, which it names. Raises NotOffered where there is no fast code."""
