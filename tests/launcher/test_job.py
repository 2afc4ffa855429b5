"""A job: what it sets up, and how it ends; several ranks are tried in test_main.py."""

from __future__ import annotations

import logging

import pytest

from dtrain.core.errors import UserError
from dtrain.dist.errors import LaunchError
from dtrain.launcher.job import open_console, open_job


def test_open_job_of_one_rank_runs_actions_and_logs(capsys: pytest.CaptureFixture[str]) -> None:
    with open_job(None) as job:
        assert (job.communicator.world_size, job.is_first) == (1, True)
        assert job.together(lambda: 7) == 7
        logging.getLogger("dtrain.test").info("hello")
    assert capsys.readouterr().err.endswith("] hello\n")


def test_open_job_unknown_communicator_raises_with_the_known() -> None:
    with pytest.raises(LaunchError, match="known: .*mpi.*single"), open_job("mpj"):
        pass


def test_open_job_with_a_users_mistake_lets_it_pass() -> None:
    with pytest.raises(UserError, match="wrong") as raised, open_job(None) as job:
        job.together(lambda: fail(UserError("wrong")))
    assert not hasattr(raised.value, "__notes__")


def test_open_job_with_a_bug_notes_where_the_rank_was() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        fail_at_iteration_12()
    (note,) = raised.value.__notes__
    assert note.startswith("rank 0 of 1 (")
    assert ') failed at iteration 12 while computing layer "ip": ZeroDivisionError: by zero' in note


def test_open_console_of_another_rank_shows_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "DTRAIN_PROGRESS": "/dev/tty"}
    assert not open_console(environment).shows_status


def fail(error: Exception) -> None:
    raise error


def fail_at_iteration_12() -> None:
    with open_job(None) as job:
        job.activity.iteration, job.activity.doing = 12, 'computing layer "ip"'
        fail(ZeroDivisionError("by zero"))
