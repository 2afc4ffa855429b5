from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dtrain.core.errors import UserError
from dtrain.core.pycaffe.uncaught import end_all_when_uncaught
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import EXIT_CLUSTER
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from tests.conftest import Mpirun
from tests.core.pycaffe.conftest import NET


@pytest.fixture(autouse=True)
def printed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of the exceptions that were given to the hook that was there before."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: found.append(error))
    return found


@pytest.mark.parametrize("error", [UserError("net.prototxt: no"), KeyError("x")])
def test_uncaught_exception_is_printed_and_ends_all_ranks(
    printed: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    aborted: list[int] = []

    def body(communicator: Communicator) -> None:
        if communicator.rank == 0:
            monkeypatch.setattr(communicator, "abort", aborted.append)
            end_all_when_uncaught(communicator)
            end_all_when_uncaught(communicator)
            sys.excepthook(type(error), error, None)

    run_ranks(2, body)
    assert printed == [error]
    assert aborted == [EXIT_CLUSTER]


def test_uncaught_exception_of_a_lone_rank_is_left_to_python() -> None:
    hook = sys.excepthook
    end_all_when_uncaught(SingleCommunicator())
    assert sys.excepthook is hook


SCRIPT = """
import dtrain as caffe

solver = caffe.get_solver("solver.prototxt")
if caffe.solver_rank() == 1:
    raise RuntimeError("rank 1 has had enough")
solver.step(1000000)
"""


def test_uncaught_exception_of_one_rank_ends_a_script_on_two(tmp_path: Path, mpirun: Mpirun) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" snapshot_prefix: "s"'
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    run = mpirun(2, ["script.py"], cwd=tmp_path, timeout_s=30)
    assert run.returncode == 3
    assert "RuntimeError: rank 1 has had enough" in run.stderr
