"""NCCL's communicator when something fails: in its initialisation, in calls under way, and while the host waits.

Under mpirun each process plays an NCCL of its own, whose ranks are threads: there the ranks never meet, as if all
others were missing.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.dist import nccl
from dtrain.dist.communicator import Communicator
from dtrain.dist.cupy_library import has_happened
from dtrain.dist.errors import ClusterError
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.threads import JobAborted, run_ranks
from tests.dist.fake_cupy import play
from tests.played.nccl import NcclError

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = """
import os, sys, time
from types import SimpleNamespace
from dtrain.launcher import main as command_line

def run(args):
    import numpy as np
    from dtrain.dist import nccl
    from dtrain.dist.supervisor import watched
    from dtrain.launcher.job import open_job
    from tests.dist import fake_cupy
    from tests.played.nccl import NcclCommunicator, NcclError
    cupy = fake_cupy.make_fake_cupy(2)
    nccl.load_nccl = lambda: cupy
    with open_job(None) as job:
        rank, activity = job.communicator.rank, job.activity
        watched().mirror.write_timeout(TIMEOUT)  # from here on: loading MPI may take longer
        if MEETS:  # in this process alone: other ranks never come, once there is something to sum
            cupy.cuda.nccl.NcclCommunicator.__init__ = meet(cupy.cuda.nccl.NcclCommunicator)
        if rank == 1:
            ACTION
        communicator = nccl.NcclCommunicator(job.communicator, rank)
        activity.iteration, activity.doing = 7, 'summing bucket 0 of 2 (gradients of layer "ip")'
        reduction = communicator.start_all_reduce(cupy.asarray(np.ones(4, np.float32)))
        reduction.wait()
        communicator.wait_for(communicator._lane.end())
    return 0

def meet(kind):
    made = kind.__init__
    def init(self, ndev, *args):
        made(self, 1, args[0], 0)
        self._meeting.num_ranks = ndev
    return init

command_line.load_command = lambda command: SimpleNamespace(add_arguments=lambda parser: None, run=run)
sys.argv[1:] = ["train"]
sys.exit(command_line.main())
"""


def test_wait_for_when_nccl_notices_a_failure_is_a_cluster_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play(monkeypatch, 2)

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        if communicator.rank == 1:  # does not take part; rank 0 would wait for ever
            return
        reduction = communicator.start_all_reduce(cupy.asarray(np.ones(4, np.float32)))
        assert not reduction.test()
        communicator._nccl.async_error = NcclError(6)
        said = r"rank 0 \(\S+\): all_reduce: NCCL says that it lost another rank.*\(NCCL_ERROR_REMOTE_ERROR: remote"
        with pytest.raises(ClusterError, match=said):
            communicator.check()
        reduction.wait()  # the stream's: the host goes on
        with pytest.raises(ClusterError, match=said):
            communicator.wait_for(communicator._lane.end())
        assert communicator.activity.collective == "all_reduce"  # for the line that is printed then
        communicator._nccl.abort()

    run_ranks(2, body)


def test_abort_aborts_nccl_and_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play(monkeypatch, 2)
    aborted: list[Any] = []

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        aborted.append(communicator._nccl)
        if communicator.rank == 0:
            communicator.start_all_reduce(cupy.asarray(np.ones(4, np.float32)))
        communicator.barrier()
        if communicator.rank == 1:
            communicator.abort(3)

    with pytest.raises(JobAborted) as caught:
        run_ranks(2, body)
    assert caught.value.exit_code == 3
    assert sum(made.is_aborted for made in aborted) == 1


def test_abort_when_nccls_own_hangs_ends_the_host_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 1)
    monkeypatch.setattr(nccl, "_ABORTING_S", 0.05)
    hanging = threading.Event()

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        monkeypatch.setattr(communicator._nccl, "abort", lambda: hanging.wait(30) or None)
        communicator.abort(3)

    with pytest.raises(JobAborted):
        run_ranks(1, body)
    hanging.set()


def test_check_of_a_call_in_progress_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 1)

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        communicator._nccl.async_error = KeyError(7)  # as cupy's NcclError(7) becomes
        communicator.check()
        communicator._nccl.async_error = KeyError(8)
        with pytest.raises(ClusterError, match=r"all_reduce: NCCL says that it waited .* \(error 8\)"):
            communicator.check()

    run_ranks(1, body)


def test_wait_for_a_gpu_that_has_failed_is_a_cluster_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play(monkeypatch, 1)

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        event = cupy.cuda.Event()
        event.failure = 700
        with pytest.raises(
            ClusterError, match=r"rank 0 \(\S+\): all_reduce: CUDA says cudaError 700; the GPU"
        ):
            communicator.wait_for(lambda: has_happened(cupy, event))

    run_ranks(1, body)


def test_abort_from_another_thread_ends_a_host_that_waits_for_a_rank_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cupy = play(monkeypatch, 2)

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        if communicator.rank == 1:
            host.barrier()  # hangs, as far as rank 0 can see
            return
        communicator.start_all_reduce(cupy.asarray(np.ones(4, np.float32)))
        watchdog = threading.Thread(target=pytest.raises, args=(JobAborted, communicator.abort, 3))
        ends = communicator._lane.end()
        watchdog.start()
        deadline = time.monotonic() + 30
        with pytest.raises(ClusterError, match=r"rank 0 \(\S+\): all_reduce: the job is being ended"):
            communicator.wait_for(lambda: ends() or time.monotonic() > deadline)
        watchdog.join()
        assert communicator._nccl.is_aborted

    with pytest.raises(ClusterError, match="aborted"):
        run_ranks(2, body)


def test_abort_while_another_thread_is_in_nccls_initialisation_is_the_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cupy = play(monkeypatch, 1)
    hanging, being_made = threading.Event(), []
    monkeypatch.setattr(NcclCommunicator, "_make_id", lambda self: being_made.append(self) or bytes(128))
    monkeypatch.setattr(cupy.cuda.nccl, "NcclCommunicator", lambda *_: hanging.wait(30))

    def body(host: Communicator) -> str:
        thread = threading.Thread(target=NcclCommunicator, args=(host,), daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while host.activity.collective != "making NCCL's communicator":
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with pytest.raises(JobAborted):
            being_made[0].abort(3)
        seen = host.activity.collective
        hanging.set()
        thread.join(30)
        return seen

    assert run_ranks(1, body) == ["making NCCL's communicator"]


def the_line(
    mpirun: Mpirun, folder: Path, action: str = "pass", meets: bool = False, timeout_s: float = 1
) -> str:
    """Run PROGRAM on two ranks, of which rank 1 does `action` first; return the one line of the job, which ends."""
    program = (
        PROGRAM.replace("ACTION", action).replace("TIMEOUT", repr(timeout_s)).replace("MEETS", repr(meets))
    )
    result = mpirun(2, ["-c", program], env={"TMPDIR": str(folder)})
    assert result.returncode == 3, result.stderr
    lines = [line for line in result.stderr.splitlines() if re.match("\0?rank [0-9]+ of 2 ", line)]
    assert len(lines) == 1, result.stderr
    return lines[0].lstrip("\0")


def test_initialisation_that_a_rank_never_comes_to_ends_within_the_time_out(
    mpirun: Mpirun, tmp_path: Path
) -> None:
    said = the_line(mpirun, tmp_path)  # of a rank in a collective call the watchdog waits twice as long
    assert re.match(
        r"rank [01] of 2 \(\S+\) waited [23] s in making NCCL's communicator for other ranks before the first"
        r" iteration while starting \(.*\); dtrain train --timeout SECONDS sets how long that may last$",
        said,
    ), said


def test_initialisation_that_fails_on_one_rank_ends_all_by_its_sentence(
    mpirun: Mpirun, tmp_path: Path
) -> None:
    action = "cupy.cuda.nccl.NcclCommunicator = lambda *args: (_ for _ in ()).throw(NcclError(2))"
    said = the_line(mpirun, tmp_path, action, timeout_s=30)
    assert re.match(
        r"rank 1 of 2 \(\S+\) failed before the first iteration while starting: rank 1 \(\S+\): making NCCL's"
        r" communicator: NCCL says that a call of the operating system failed in it, for a socket or for shared"
        r" memory \(NCCL_ERROR_SYSTEM_ERROR: .*\); each host must reach the others by the interface",
        said,
    ), said


def test_all_reduce_that_a_rank_never_comes_to_ends_within_the_time_out(
    mpirun: Mpirun, tmp_path: Path
) -> None:
    said = the_line(mpirun, tmp_path, meets=True)
    assert re.match(
        r"rank [01] of 2 \(\S+\) waited [23] s in all_reduce for other ranks at iteration 7 while summing bucket 0 of"
        r' 2 \(gradients of layer "ip"\) \(.* in wait_for\); dtrain train --timeout',
        said,
    ), said
