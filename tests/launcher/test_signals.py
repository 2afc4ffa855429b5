"""Signals, sent to this very process, and to one process of a job."""

from __future__ import annotations

import os
import re
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from dtrain.launcher import signals
from dtrain.launcher.signals import ECHO_S, signal_effects, signals_handled
from tests.conftest import Mpirun


class Asked:
    """A solver that notes what it is asked for."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    def request_stop(self) -> None:
        self.requests.append("stop")

    def request_snapshot(self) -> None:
        self.requests.append("snapshot")


def test_signal_effects_of_defaults_are_caffes() -> None:
    expected = {
        signal.SIGINT: "stop",
        signal.SIGHUP: "snapshot",
        signal.SIGTERM: "stop",
        signal.SIGUSR1: "stop",
    }
    assert signal_effects("stop", "snapshot") == expected


@pytest.mark.parametrize(
    ("effect", "requests"), [("stop", ["stop"]), ("snapshot", ["snapshot"]), ("none", [])]
)
def test_signals_handled_with_each_effect_asks_the_solver(effect: str, requests: list[str]) -> None:
    solver = Asked()
    with signals_handled(solver, {signal.SIGHUP: effect}):
        os.kill(os.getpid(), signal.SIGHUP)
    assert solver.requests == requests


def test_signals_handled_a_second_stop_has_the_earlier_effect(request: pytest.FixtureRequest) -> None:
    solver = Asked()
    # A shell starts what runs in the background with SIGINT ignored, pytest too.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, inherited))
    with signals_handled(solver, {signal.SIGINT: "stop"}):
        os.kill(os.getpid(), signal.SIGINT)
        assert solver.requests == ["stop"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("effect", "requests"), [("stop", ["stop"]), ("snapshot", ["snapshot", "snapshot"])])
def test_signals_handled_under_a_supervisor_takes_an_echo_for_the_same_signal(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, effect: str, requests: list[str]
) -> None:
    times = iter([100.0, 100.0 + ECHO_S / 2, 100.0 + 2 * ECHO_S])
    monkeypatch.setattr(signals, "watched", lambda: object())
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(times))
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, inherited))
    solver = Asked()
    ends = pytest.raises(KeyboardInterrupt) if effect == "stop" else nullcontext()
    with signals_handled(solver, {signal.SIGINT: effect}):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert solver.requests == [effect]
        with ends:
            os.kill(os.getpid(), signal.SIGINT)
    assert solver.requests == requests
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_signals_handled_afterwards_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals_handled(Asked(), signal_effects("stop", "snapshot")):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


STOPPED_RUN = """\
import os, signal, sys
from dtrain.launcher.main import main
from dtrain.core.solver.solver import Solver
apply_update = Solver.apply_update
def signal_on_rank_1(solver):
    if solver.communicator.rank == 1 and solver.iter == 3:
        os.kill(RECEIVER, signal.SIGNAL)
    apply_update(solver)
Solver.apply_update = signal_on_rank_1
sys.argv[1:] = ["solver.prototxt"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("receiver", "name"),
    [("os.getpid()", "SIGTERM"), ("os.getppid()", "SIGTERM"), ("os.getppid()", "SIGUSR1")],
    ids=["SIGTERM to a rank", "SIGTERM to a supervisor", "SIGUSR1 to a supervisor"],
)
def test_stop_signal_to_one_process_of_a_job_snapshots_and_stops_all(
    mpirun: Mpirun, run_folder: Path, receiver: str, name: str
) -> None:
    solver = run_folder / "solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 6", "max_iter: 100000000"))
    program = STOPPED_RUN.replace("RECEIVER", receiver).replace("SIGNAL", name)
    done = mpirun(3, ["-c", program], cwd=run_folder)
    assert done.returncode == 75, done.stderr
    (told,) = re.findall(r"Stopped at iteration (\d+); go on with --snapshot (\S+)", done.stderr)
    assert int(told[0]) >= 4
    assert (run_folder / told[1]).exists()
    assert re.findall("^rank ", done.stderr, re.MULTILINE) == []
