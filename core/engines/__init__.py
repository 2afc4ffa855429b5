"""Engines: who does the arithmetic of a net's layers. This is the facade that nets and commands use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dtrain.core.engines.engine import ENGINES as ENGINES
from dtrain.core.engines.engine import Engine as Engine
from dtrain.core.engines.engine import Promises as Promises
from dtrain.core.engines.onednn import engine as _onednn  # noqa: F401  (registers itself)
from dtrain.core.engines.reference import engine as _reference  # noqa: F401  (registers itself)
from dtrain.core.errors import MissingLibrary, UserError

# The fastest first.
CPU_ENGINES = ("onednn", "reference")
GPU_ENGINES = ("cudnn", "cupy")

for _name in GPU_ENGINES:  # which a CPU need not wait for
    ENGINES.register_module(_name, f"{__name__}.{_name}.engine")

log = logging.getLogger(__name__)

_NONE_ASKED = Promises()


def create_engine(
    name: str | None = None,
    precision: str = "FLOAT32",
    *,
    on_gpu: bool = False,
    promises: Promises = _NONE_ASKED,
    tell: Callable[[str], object] = log.warning,
) -> Engine:
    """Return the engine called `name`, or without a name the fastest that is installed and works.

    Arguments:
        precision: what the solver's field of that name says; engines that can't compute in it don't count.
        on_gpu: whether one for the current GPU is to be taken, else one for CPUs.
        promises: what it is to keep to.
        tell: hears of engines that are installed and do not work, and on a GPU of those that are not installed.

    Raises UserError that lists the known engines for an unknown name, and one that says what is missing for an engine
    or a precision.
    """
    if name is not None:
        return ENGINES[name].promising(precision, promises)
    *faster, last = _able(GPU_ENGINES if on_gpu else CPU_ENGINES, precision)
    for candidate in faster:
        try:
            return ENGINES[candidate].promising(precision, promises)
        except UserError as error:
            if on_gpu or not isinstance(error, MissingLibrary):
                tell(f"engine {candidate} can't be used, so a slower one computes: {error}")
    return ENGINES[last].promising(precision, promises)


def _able(names: Sequence[str], precision: str) -> list[str]:
    """Return those of the engines that can compute in `precision`; raise UserError if there are none."""
    able = [name for name in names if name in ENGINES and precision in ENGINES[name].precisions]
    if not able:
        others = " or ".join(name for name in ENGINES if precision in ENGINES[name].precisions)
        known = ", ".join(name for name in names if name in ENGINES)
        raise UserError(
            f"precision {precision}: there must be an engine for it, got none among {known}; use FLOAT32"
            + (f", or --engine {others}" if others else "")
        )
    return able
