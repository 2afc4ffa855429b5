"""The tests of operations and layers on a real GPU: those that a machine without one runs on played devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.played.cupy import REAL_GPU

ROOT = Path(__file__).resolve().parents[2]
SUITES = (
    "tests/core/engines/reference",
    "tests/core/engines/cupy",
    "tests/core/engines/cudnn",
    "tests/core/layers",
)


@pytest.mark.parametrize("suite", SUITES)
def test_suite_on_a_real_gpu_passes(gpus: int, suite: str) -> None:
    assert gpus
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--color=no", "-k", "cupy or cudnn or kernel or gpu", suite],
        cwd=ROOT,
        env={**os.environ, REAL_GPU: "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
