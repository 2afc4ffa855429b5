"""What the fuzzer knows of a kind of file: how whole ones are made, and how one is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: of the row.
        file_name: under which its files are read, in a folder of the test's own.
        make: writes into the folder what else a reader needs there, and returns the bytes of whole files, the
            same each time.
        read: reads a file in full, or raises an error of dtrain's own.
        words: of a text: pieces that mean something in such a file, for the damager.
        needs: optional packages without which the row is skipped.
        names_its_file: whether each problem of an error begins with a path.
    """

    name: str
    file_name: str
    make: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()
    needs: tuple[str, ...] = ()
    names_its_file: bool = True


def look_at(values: Any) -> None:
    """Read every value of an array, also where it is mapped from a file."""
    with np.errstate(all="ignore"):
        np.asarray(values).sum()
