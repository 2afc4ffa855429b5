"""Writing in the background: order, errors and the end."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import BackgroundWriter

TIMEOUT_S = 10


def fail() -> None:
    raise UserError("no space")


def test_submit_returns_while_the_action_runs() -> None:
    release, done = threading.Event(), threading.Event()

    def action() -> None:
        release.wait(TIMEOUT_S)
        done.set()

    with BackgroundWriter() as writer:
        writer.submit(action)
        assert not done.is_set()
        release.set()
        writer.finish()
        assert done.is_set()


def test_submit_waits_for_the_action_before() -> None:
    order: list[str] = []
    release = threading.Event()

    def first() -> None:
        release.wait(TIMEOUT_S)
        order.append("first done")

    with BackgroundWriter() as writer:
        writer.submit(first)
        threading.Timer(0.05, release.set).start()
        writer.submit(lambda: order.append("second done"))
        assert order[0] == "first done"
    assert order == ["first done", "second done"]


def test_submit_runs_every_action_in_one_other_thread() -> None:
    threads: list[threading.Thread] = []
    with BackgroundWriter() as writer:
        for _ in range(3):
            writer.submit(lambda: threads.append(threading.current_thread()))
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_submit_after_a_failure_raises_it_once_and_runs_nothing() -> None:
    ran: list[int] = []
    with BackgroundWriter() as writer:
        writer.submit(fail)
        with pytest.raises(UserError, match="no space"):
            writer.submit(lambda: ran.append(1))
        writer.submit(lambda: ran.append(2))
    assert ran == [2]


def test_finish_raises_the_failure_once() -> None:
    with BackgroundWriter() as writer:
        writer.submit(fail)
        with pytest.raises(UserError, match="no space"):
            writer.finish()
        writer.finish()


def test_exit_raises_a_failure_that_nobody_saw() -> None:
    with pytest.raises(UserError, match="no space"), BackgroundWriter() as writer:
        writer.submit(fail)


def test_exit_with_an_exception_under_way_logs_the_failure_instead(caplog: pytest.LogCaptureFixture) -> None:
    def train() -> None:
        with BackgroundWriter() as writer:
            writer.submit(fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert [record.getMessage() for record in caplog.records] == ["no space"]
    assert caplog.records[0].levelno == logging.ERROR


def test_poll_raises_a_failure_once_and_waits_for_nothing() -> None:
    release, failed = threading.Event(), threading.Event()

    def fail_when_released() -> None:
        release.wait(TIMEOUT_S)
        failed.set()
        fail()

    with BackgroundWriter() as writer:
        writer.poll()
        writer.submit(fail_when_released)
        writer.poll()
        assert not failed.is_set()
        release.set()
        failed.wait(TIMEOUT_S)
        with pytest.raises(UserError, match="no space"):
            _poll_until_it_raises(writer)
        writer.poll()


def _poll_until_it_raises(writer: BackgroundWriter) -> None:
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        writer.poll()
