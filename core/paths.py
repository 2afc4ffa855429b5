"""Where the files that a prototxt names are looked for."""

from __future__ import annotations

import os

from dtrain.core.errors import UserError


def resolve(path: str, named_in: str) -> str:
    """Return `path` as it is found: relative to the working directory, as Caffe does, or else to the folder of
    the file `named_in` that names it. A path found in neither place is returned unchanged.

    Raises UserError for a path that no system can have.
    """
    if "\0" in path:
        raise UserError(f"{named_in}: a file's name must have no NUL character, got {path!r}")
    if os.path.isabs(path) or os.path.exists(path):
        return path
    beside = os.path.join(os.path.dirname(named_in), path)
    return beside if os.path.exists(beside) else path
