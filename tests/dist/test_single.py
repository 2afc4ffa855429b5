"""The calls are in test_communicator.py; here is how a job of one rank aborts."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
from dtrain.dist.single import SingleCommunicator
print("flushed", end="")
threading.Thread(target=SingleCommunicator().abort, args=(3,)).start()
threading.Event().wait()
"""


def test_single_abort_from_another_thread_ends_the_process_with_its_code_and_output() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout, result.stderr) == (3, "flushed", "")
