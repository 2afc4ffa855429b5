"""Engines: who does the arithmetic of a net's layers. This is the facade that nets and commands use."""

from __future__ import annotations

import logging

from dtrain.core.engines.cupy import engine as _cupy  # noqa: F401  (registers itself)
from dtrain.core.engines.engine import ENGINES as ENGINES
from dtrain.core.engines.engine import Engine as Engine
from dtrain.core.engines.onednn import engine as _onednn  # noqa: F401  (registers itself)
from dtrain.core.engines.onednn.library import MissingLibrary
from dtrain.core.engines.reference import engine as _reference  # noqa: F401  (registers itself)
from dtrain.core.errors import UserError

FASTEST_FIRST = ("onednn", "reference")

log = logging.getLogger(__name__)


def create_engine(name: str | None = None, precision: str = "FLOAT32") -> Engine:
    """Return the engine called `name`, or without a name the fastest that is installed and works.

    precision: what the solver's field of that name says. One that is installed and does not work is named in the log;
    but no other stands in where only one can compute in that precision. Raises UserError that lists the known engines
    for an unknown name, and one that says what is missing for an engine or a precision that can't be had.
    """
    *faster, last = FASTEST_FIRST
    if name is None and precision != "FLOAT32":
        name = faster[0]
    if name is not None:
        return ENGINES[name](precision)
    for candidate in faster:
        try:
            return ENGINES[candidate](precision)
        except MissingLibrary:
            continue
        except UserError as error:
            log.warning("engine %s can't be used, so a slower one computes: %s", candidate, error)
    return ENGINES[last](precision)
