"""Engines: who does the arithmetic of a net's layers. This is the facade that nets and commands use."""

from __future__ import annotations

import logging

from dtrain.core.engines.engine import ENGINES as ENGINES
from dtrain.core.engines.engine import Engine as Engine
from dtrain.core.engines.onednn import engine as _onednn  # noqa: F401  (registers itself)
from dtrain.core.engines.onednn.library import MissingLibrary
from dtrain.core.engines.reference import engine as _reference  # noqa: F401  (registers itself)
from dtrain.core.errors import UserError

FASTEST_FIRST = ("onednn", "reference")

log = logging.getLogger(__name__)


def create_engine(name: str | None = None) -> Engine:
    """Return the engine called `name`, or without a name the fastest that is installed and works.

    One that is installed and does not work is named in the log. Raises UserError that lists the known engines for an
    unknown name, and one that says what is missing for an engine that can't be had.
    """
    if name is not None:
        return ENGINES[name]()
    *faster, last = FASTEST_FIRST
    for candidate in faster:
        try:
            return ENGINES[candidate]()
        except MissingLibrary:
            continue
        except UserError as error:
            log.warning("engine %s can't be used, so a slower one computes: %s", candidate, error)
    return ENGINES[last]()
