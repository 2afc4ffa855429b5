"""Lets programs of the benchmark of GPUs run on played devices: for their names and arguments, not for figures."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

VARIABLE = "DTRAIN_PLAYED_GPU"  # if set; then sizes are small, too
IS_PLAYED = bool(os.environ.get(VARIABLE))


def play_if_asked() -> None:
    """Let engines find played devices from now on, if they are asked for."""
    if not IS_PLAYED:
        return
    sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[3]))
    import pytest

    from tests.played.cudnn import play_cudnn

    _, cupy = play_cudnn(pytest.MonkeyPatch())
    cupy.cuda.get_elapsed_time = lambda began, ended: 1000.0
    cupy.cuda.MemoryHook = _NoHook


class _NoHook(nullcontext[Any]):
    """A hook that is told of nothing."""
