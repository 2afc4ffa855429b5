"""Engines: who does the arithmetic of a net's layers. This is the facade that nets and commands use."""

from __future__ import annotations

from dtrain.core.engines.engine import ENGINES as ENGINES
from dtrain.core.engines.engine import Engine as Engine
from dtrain.core.engines.reference import engine as _reference  # noqa: F401  (registers itself)

FASTEST_FIRST = ("reference",)


def create_engine(name: str | None = None) -> Engine:
    """Return the engine called `name`, or without a name the fastest that is installed and works.

    Raises UserError that lists the known engines for an unknown name.
    """
    return ENGINES[FASTEST_FIRST[0] if name is None else name]()
