from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]

# Products under a rain of signals. Without a stack of their own it aborts, or goes wrong, within a second.
PROGRAM = """
import signal, sys, time
import numpy as np
from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.operations import InnerProductSpec

engine = create_engine("onednn")
product = engine.create(InnerProductSpec(100, 1000, 784, bias=False))
random = np.random.default_rng(1)
x, weight, y = Blob((100, 1000)), Blob((784, 1000)), Blob((100, 784))
for blob in (x, weight):
    blob.data[...] = random.standard_normal(blob.shape)
product.forward(x, weight, None, y)
expected = y.data.copy()
signals = []
signal.signal(signal.SIGALRM, lambda *_: signals.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
end, num_wrong = time.monotonic() + 3, 0
while time.monotonic() < end:
    product.forward(x, weight, None, y)
    num_wrong += not np.array_equal(y.read_data(), expected)
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(signals), num_wrong)
"""


@pytest.mark.usefixtures("onednn")
def test_signals_within_matrix_products_change_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    num_signals, num_wrong = map(int, done.stdout.split())
    assert num_signals > 100
    assert num_wrong == 0
