"""dtrain demo: what it reads out of the log and where it refuses; `make demo` runs the whole of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtrain.launcher.commands import demo
from dtrain.launcher.commands.demo import closing_lines, readable_command, show_and_keep
from dtrain.launcher.main import main

LOG = """\
I1120 13:56:52.794765  1000 display.py:65]     Test net output #0: accuracy = 0.102778
I1120 13:56:52.794765  1000 keeper.py:69] Snapshotting solver state to binary proto file s/d_iter_500.solverstate
I1120 13:56:52.794765  1000 keeper.py:69] Snapshotting solver state to binary proto file s/d_iter_1000.solverstate
I1120 13:56:54.867551  1000 display.py:65]     Test net output #0: accuracy = 0.983333
I1120 13:56:54.874665  1000 display.py:65]     Test net output #1: loss = 0.0428463 (* 1 = 0.0428463 loss)
"""


def test_closing_lines_take_the_last_test_and_snapshot() -> None:
    lines = closing_lines(LOG, 2)
    assert "Test accuracy: 0.983333" in lines
    assert "Snapshot:      s/d_iter_1000.solverstate, weights s/d_iter_1000.caffemodel" in lines
    assert any(line.endswith(f"dtrain {demo.SOLVER} --snapshot s/d_iter_500.solverstate") for line in lines)


def test_closing_lines_of_an_empty_log_say_so() -> None:
    assert closing_lines("", 2) == ["", "The log has no test or no snapshot"]


@pytest.mark.parametrize(
    ("is_root", "prefix"),
    [(False, ""), (True, "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ")],
)
def test_readable_command_can_be_typed_here(
    monkeypatch: pytest.MonkeyPatch, is_root: bool, prefix: str
) -> None:
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(demo, "num_physical_cores", lambda: 2)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    assert readable_command(2) == f"{prefix}mpirun -np 2 dtrain configs/digits/solver.prototxt"


def test_show_and_keep_copies_what_comes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code = "import sys; sys.stderr.write('one\\ntwo')"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert show_and_keep(process.stderr) == "one\ntwo"
    assert capfdbinary.readouterr().err == b"one\ntwo"


def test_demo_outside_of_a_checkout_is_a_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 2
    assert "must run in a checkout of dtrain" in capsys.readouterr().err
