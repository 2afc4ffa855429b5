"""Signals, sent to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from dtrain.launcher.signals import signal_effects, signals_handled


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


def test_signals_handled_afterwards_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals_handled(Asked(), signal_effects("stop", "snapshot")):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
