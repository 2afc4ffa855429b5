"""A job: what it sets up, and how it ends; several ranks are tried in test_main.py."""

from __future__ import annotations

import io
import logging

import pytest

from dtrain.core.errors import UserError
from dtrain.dist import nccl
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import BUILT_FOR_GPUS
from dtrain.dist.errors import AgreedFailure, LaunchError
from dtrain.dist.threads import run_ranks
from dtrain.launcher.console import Console
from dtrain.launcher.gpus import GpuRequest
from dtrain.launcher.job import Job, open_console, open_job, take_gpu_alone
from tests.dist.fake_cupy import make_fake_cupy
from tests.played.cupy import play_cupy


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


def taken(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, request: GpuRequest, name: str | None = None
) -> list[tuple[int | None, str, str]]:
    """Return device, communicator and its reason of two ranks on a host with so many played GPUs."""
    play_cupy(monkeypatch, num_gpus)
    monkeypatch.setattr(nccl, "load_nccl", lambda: make_fake_cupy(num_gpus))

    def body(host: Communicator) -> tuple[int | None, str, str]:
        host.reason = "2 ranks"
        job = Job(host, Console(io.StringIO()), host.activity, name)
        job.take_gpu(request)
        assert job.on_gpu == (job.device is not None)
        return job.device, job.communicator.name, job.communicator.reason

    return run_ranks(2, body, hosts=["a", "a"])


def test_take_gpu_of_two_ranks_gives_each_its_own_and_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "2 ranks; threads for what is on the host"
    assert taken(monkeypatch, 2, GpuRequest()) == [(0, "nccl", reason), (1, "nccl", reason)]
    assert taken(monkeypatch, 4, GpuRequest(gpu="3,1")) == [(3, "nccl", reason), (1, "nccl", reason)]


def test_take_gpu_with_another_communicator_chosen_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(monkeypatch, 2, GpuRequest(), "mpi") == [(rank, "threads", "2 ranks") for rank in (0, 1)]


def test_take_gpu_for_the_cpu_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(monkeypatch, 2, GpuRequest(is_mode_gpu=False)) == [(None, "threads", "2 ranks")] * 2


def test_take_gpu_that_ranks_share_says_why_there_is_no_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, name, reason in taken(monkeypatch, 1, GpuRequest()):
        assert (device, name) == (0, "threads")
        assert "rank 0 (a) and rank 1 (a) share device 0000:00:00.0 of a" in reason


@pytest.mark.parametrize(
    ("num_gpus", "request_", "name", "sentence"),
    [
        (
            0,
            GpuRequest(gpu="all"),
            None,
            "--gpu all: CUDA must find a GPU that it can use, got cudaErrorNoDevice",
        ),
        (0, GpuRequest(), "nccl", "nccl: each rank must compute on a GPU, got: rank 0 (a) has no device;"),
        (
            1,
            GpuRequest(),
            "nccl",
            "nccl: each rank must have a GPU of its own, got: rank 0 (a) and rank 1 (a)",
        ),
        (4, GpuRequest(gpu="0"), None, "--gpu 0: a must have a GPU for each of its ranks, got 1 (0) for 2;"),
    ],
)
def test_take_gpu_that_can_not_be_ends_all_ranks_as_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, request_: GpuRequest, name: str | None, sentence: str
) -> None:
    play_cupy(monkeypatch, num_gpus)
    monkeypatch.setattr(nccl, "load_nccl", lambda: make_fake_cupy(num_gpus))

    def body(host: Communicator) -> None:
        with pytest.raises(AgreedFailure) as caught:
            Job(host, Console(io.StringIO()), host.activity, name).take_gpu(request_)
        assert str(caught.value).startswith(sentence)
        assert caught.value.exit_code == 2

    run_ranks(2, body, hosts=["a", "a"])


def test_warn_says_each_sentence_once_with_the_ranks_that_have_it(caplog: pytest.LogCaptureFixture) -> None:
    def body(host: Communicator) -> None:
        job = Job(host, Console(io.StringIO()), host.activity)
        job.warn([])
        job.warn(["all have it", *["some have it"] * (host.rank != 1)])

    with caplog.at_level(logging.WARNING):
        run_ranks(3, body, hosts=["a", "b", "b"])
    assert caplog.messages == ["all have it", "rank 0 (a), rank 2 (b): some have it"]


@pytest.mark.parametrize("name", BUILT_FOR_GPUS)
def test_open_job_by_nccl_on_no_gpu_is_a_users_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    play_cupy(monkeypatch, 0)
    with pytest.raises(LaunchError, match="^nccl: each rank must compute on a GPU"), open_job(name) as job:
        job.take_gpu(GpuRequest())


def test_take_gpu_alone_logs_the_note(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    play_cupy(monkeypatch, 2)
    logging.getLogger().addHandler(caplog.handler)
    assert take_gpu_alone(GpuRequest(gpu="all"))
    assert "--gpu all: 1 of 2 GPUs of " in caplog.messages[-1]
    play_cupy(monkeypatch, 0)
    assert not take_gpu_alone(GpuRequest())


def fail(error: Exception) -> None:
    raise error


def fail_at_iteration_12() -> None:
    with open_job(None) as job:
        job.activity.iteration, job.activity.doing = 12, 'computing layer "ip"'
        fail(ZeroDivisionError("by zero"))
