"""The engine interface: who does the arithmetic of a net's layers.

An engine has a memory in which its arrays live, an array module `xp` (numpy or cupy) in which layers write
what no operation covers, and a table from spec types (operations.py) to the classes that carry them out.
"""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.registry import Registry
from dtrain.core.tensor import Memory

log = logging.getLogger(__name__)


class NotOffered(Exception):
    """An engine has an operation, but not for this spec; in words for what, if that is not the whole operation."""


_FOLDER = "dtrain.core.engines."


@dataclass(frozen=True)
class Promises:
    """What a run asks of its engine beside a precision. On CPUs each engine keeps all of it anyway.

    strict_float32: no product of float32 values is rounded to fewer bits. deterministic: the same bits in each run
    on the same machine.
    """

    strict_float32: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class Step:
    """What runs at one place of a net, a layer or several as one, and on what.

    runs: keeps the operations that the engine has made for it.
    """

    runs: object
    bottoms: Sequence[Blob]
    tops: Sequence[Blob]


class Engine(ABC):
    """Carries out operations on blobs.

    name: what the command line and `engine` fields call it. memory: where its arrays live. xp: the array
    module of those arrays. operations: spec type → factory(spec, engine), which may raise NotOffered. fallback: the
    engine that is asked for what is missing here; it is named once in the log. precisions: what it can compute in, as
    the solver's field of that name calls it. Raises UserError for another one.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("FLOAT32",)
    memory: Memory
    xp: Any
    operations: Mapping[type, Callable[[Any, Engine], Any]]
    fallback: Engine | None = None

    def __init__(self, precision: str = "FLOAT32") -> None:
        if precision not in self.precisions:
            known = " or ".join(self.precisions)
            able = " or ".join(name for name in ENGINES if precision in ENGINES[name].precisions)
            raise UserError(
                f"engine {self.name}: precision must be {known}, got {precision}"
                + (f"; {precision} needs engine {able}" if able else "")
            )
        self.precision = precision
        self._told: set[str] = set()

    @classmethod
    def promising(cls, precision: str, promises: Promises) -> Engine:
        """Return one that keeps `promises`; those that always do need not hear of them."""
        return cls(precision)

    def create(self, spec: Any) -> Any:
        """Return the object that carries out `spec` (one of operations.py, whose protocols say how)."""
        try:
            return self.create_own(spec)
        except NotOffered as limits:
            kind = type(spec).__name__.removesuffix("Spec")
            return self.ask_fallback(spec, " ".join([kind, *limits.args]))

    def create_own(self, spec: Any) -> Any:
        """Return the object that carries out `spec`; raise NotOffered if this engine itself has none."""
        factory = self.operations.get(type(spec))
        if factory is None:
            raise NotOffered
        return factory(spec, self)

    def ask_fallback(self, spec: Any, kind: str) -> Any:
        """Return what the fallback has for `spec`, and say once that this engine has no `kind`."""
        assert self.fallback is not None, f"engine {self.name} has no {kind} and no engine to fall back on"
        self.tell_once(f"engine {self.name} has no {kind}; engine {self.fallback.name} runs it")
        return self.fallback.create(spec)

    def tell_once(self, text: str) -> None:
        """Log `text` unless it has been."""
        if text not in self._told:
            self._told.add(text)
            log.info(text)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """Return a·b of two matrices, or of two stacks of equally many, (S, M, K) and (S, K, N); in `out` if given.

        a and b are of one type, float32 or float64, which is what their sums are too; `out` has no gaps. Layers and
        operations multiply by this instead of by xp, since cupy's products can't be captured into a graph.
        """
        return self.xp.matmul(a, b, out=out)

    def sum_squares(self, x: Any) -> Any:
        """Return Σx² of a vector, or of each row of a matrix."""
        return self.xp.dot(x, x) if x.ndim == 1 else self.xp.einsum("ij,ij->i", x, x)

    def plan(self, steps: Sequence[Step]) -> None:  # noqa: B027 (optional hook)
        """Hear what a net will run forward, in order, before it does, and prepare its operations."""

    def looks_at_values(self) -> bool:
        """Return whether layers are to look for mistakes in values, such as labels that are no class, in forward.

        If not, since it runs to be captured into a graph, they make NaN of what they compute of those.
        """
        return True

    def synchronize(self) -> None:  # noqa: B027 (optional hook)
        """Wait until all that operations and layers were given to do is done; a GPU does it behind the caller."""

    def scratch(self) -> Any:
        """Return the memory in which this thread's operations work by turns, for whoever must keep it; None: none."""
        return None

    def describe(self) -> str:
        """Return one line on the libraries and threads behind this engine."""
        return self.name


ENGINES: Registry[type[Engine]] = Registry("engine")  # each is made for a precision


def operations_of(runs: object) -> Iterator[Any]:
    """Yield the operations of engines that a layer, or what several run as, keeps, in the order of its attributes."""
    for value in vars(runs).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            is_of_engines = type(item).__module__.startswith(_FOLDER)
            if is_of_engines and hasattr(item, "forward"):
                yield item
