from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dtrain.dist.stack_probe import StackProbe, innermost

ROOT = Path(__file__).resolve().parents[2]

STACK = """\
Current thread 0x00007f (most recent call first):
  File "/a/b c/conv.py", line 123 in forward
  File "/a/net.py", line 5 in <module>
"""


@pytest.mark.parametrize(
    ("text", "place"), [(STACK, "conv.py:123 in forward"), ("", ""), ("Current thread 0x00007f:\n", "")]
)
def test_innermost_of_a_stack(text: str, place: str) -> None:
    assert innermost(text) == place


PROGRAM = """\
import ctypes, os, signal, sys, time
from dtrain.dist.stack_probe import StackProbe
probe = StackProbe()
ready = os.pipe()
pid = os.fork()
if pid == 0:
    probe.answer()
    os.write(ready[1], b".")
    WAIT
os.read(ready[0], 1)
time.sleep(0.1)
print(probe.ask(pid))
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""
LINE = PROGRAM[: PROGRAM.index("WAIT")].count("\n") + 1


@pytest.mark.parametrize(
    "wait",
    ["time.sleep(60)", "while True: pass", "ctypes.PyDLL(None).sleep(60)"],
    ids=["asleep", "busy", "in a library, with Python's lock"],
)
def test_stack_probe_asked_of_a_stuck_process_tells_its_line(wait: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("WAIT", wait)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    assert run.stdout == f"<string>:{LINE} in <module>\n"


def test_stack_probe_asked_of_a_stopped_process_gives_up() -> None:
    probe = StackProbe()
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert probe.ask(pid) == ""
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
