"""Loading the shared library that an engine computes by: the first of several places that has it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from dtrain.core.errors import MissingLibrary, UserError


def load_first(paths: Iterable[str], missing: str, fix: str) -> tuple[ctypes.CDLL, str]:
    """Return the first library of `paths` that is there, and its path; a bare name is looked for as the system does.

    Arguments:
        missing: what to say if there is none. fix: what to do about it.

    Raises MissingLibrary if there is none, and UserError if one that is there can't be loaded.
    """
    for path in paths:
        try:
            return ctypes.CDLL(path), path
        except OSError as error:
            if os.path.sep not in path:
                continue
            raise UserError(f"{path} must be a library that can be loaded, got: {error}; {fix}") from None
    raise MissingLibrary(f"{missing}; {fix}")
