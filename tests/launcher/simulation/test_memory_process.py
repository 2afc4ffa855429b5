from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.launcher.simulation.memory_process import measure_process, peak_bytes
from tests.conftest import ROOT

ALLOCATE = """
from dtrain.launcher.simulation.memory_process import peak_bytes
before = peak_bytes()
array = bytearray(100_000_000)
del array
print(peak_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says here what a process takes")
def test_peak_bytes_grows_by_what_was_taken_also_once_it_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) == pytest.approx(100e6, rel=0.02)


def test_measure_process_is_less_than_a_process_that_has_loaded_more_and_is_measured_once() -> None:
    measured = measure_process("reference")
    assert 10e6 < measured < peak_bytes()  # this one has pytest and other tests' modules too
    assert measure_process.cache_info().misses >= 1
    hits = measure_process.cache_info().hits
    assert measure_process("reference") == measured
    assert measure_process.cache_info().hits == hits + 1


def test_measure_process_without_convolutions_is_less() -> None:
    try:
        create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN, of which their code is a part, is not installed")
    assert measure_process("onednn", convolves=False) < measure_process("onednn") - 2_000_000


def test_measure_process_of_an_unknown_engine_fails_with_what_it_said() -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)a process that measures its own memory must succeed.*nonesuch"
    ):
        measure_process("nonesuch")
