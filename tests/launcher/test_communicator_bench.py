"""The measurement of communicators: its cases and table from closed forms, its rows under a real mpirun."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.dist.communicator import Array, Communicator
from dtrain.dist.create import COMMUNICATORS
from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from dtrain.dist.topology import topology_from_hosts
from dtrain.launcher import communicator_bench
from dtrain.launcher.communicator_bench import (
    Case,
    Measured,
    cases_up_to,
    measure_all,
    measure_kind,
    table_lines,
    time_all_reduce,
)

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

WORLD = """
import sys
from dtrain.launcher.communicator_bench import measure_world
measure_world(int(sys.argv[1]))
"""


def test_cases_up_to_256_mb_are_seven_sizes_and_one_in_float16() -> None:
    assert [case.title for case in cases_up_to(256 * 2**20)] == [
        *("64 KB float32", "256 KB float32", "1 MB float32", "4 MB float32", "16 MB float32"),
        *("16 MB float16", "64 MB float32", "256 MB float32"),
    ]
    assert cases_up_to(70_000) == [Case(65536)]
    assert cases_up_to(1) == []


def test_table_lines_show_time_and_rate_and_why_not() -> None:
    rows = [
        Measured("single", reason="is for 1 rank, not 2"),
        Measured("mpi", (0.001, 0.5)),
        Measured("window", (0.0005, 0.25)),
    ]
    cases = [Case(2**20), Case(2**28)]
    lines = table_lines(topology_from_hosts(["a", "a"], 0), "window", cases, rows)
    assert lines == [
        "all_reduce of 2 ranks on one host; GB/s are an array's bytes over the time",
        "                                       mpi           window (chosen)",
        "1 MB float32          1.000 ms   1.05 GB/s      0.500 ms   2.10 GB/s",
        "256 MB float32      500.000 ms   0.54 GB/s    250.000 ms   1.07 GB/s",
        "single: is for 1 rank, not 2",
    ]


def test_table_lines_of_several_hosts_say_so() -> None:
    topology = topology_from_hosts(["a", "b", "b"], 0)
    assert table_lines(topology, "mpi", [], [])[0].startswith("all_reduce of 3 ranks on 2 hosts;")


class Slow(SingleCommunicator):
    """Takes 20 ms for each all_reduce of 1000 halves."""

    name = "slow"
    num_calls = 0

    def _all_reduce(self, array: Array) -> None:
        assert (array.dtype, array.size) == (np.float16, 1000)
        Slow.num_calls += 1
        communicator_bench.time.sleep(0.02)


def test_time_all_reduce_is_the_calls_own_time() -> None:
    seconds = time_all_reduce(Slow(), Case(2000, "float16"))
    assert seconds >= 0.02
    assert 3 + 2 <= Slow.num_calls <= 0.3 / 0.02 + 2 + 1


def test_measure_kind_that_fails_on_one_rank_is_left_out_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(world: Communicator) -> Measured:
        return measure_kind(world, "failing", [Case(1024)])

    ranks = iter(range(3))

    def make() -> Communicator:
        if next(ranks) == 1:
            raise ClusterError("no shared memory\nhere")
        return SingleCommunicator()

    monkeypatch.setitem(COMMUNICATORS, "failing", make)
    for measured in run_ranks(3, body):
        assert measured.seconds == ()
        # Whichever rank came second says its own, the others that theirs is of another size.
        assert measured.reason in ("no shared memory; here", "is for 1 rank, not 3")


def test_measure_all_of_one_rank_measures_single_and_says_why_not_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> Communicator:
        raise LaunchError("mpi: mpi4py must be installed")

    monkeypatch.setattr(
        communicator_bench, "COMMUNICATORS", {"single": SingleCommunicator, "mpi": refuse}, raising=True
    )
    single, mpi = measure_all(SingleCommunicator(), [Case(4096)])
    assert (single.kind, len(single.seconds), single.reason) == ("single", 1, "")
    assert mpi == Measured("mpi", reason="mpi: mpi4py must be installed")


def test_measure_world_under_mpirun_prints_a_rate_for_each_kind(mpirun: Mpirun) -> None:
    result = mpirun(2, ["-c", WORLD, str(2**18)], timeout_s=120)
    assert result.returncode == 0, result.stderr
    first, head, *lines = result.stdout.splitlines()
    assert first.startswith("all_reduce of 2 ranks on one host")
    assert head.count("(chosen)") == 1
    kinds = head.replace(" (chosen)", "").split()
    assert "mpi" in kinds
    assert [line[:16].strip() for line in lines[:2]] == ["64 KB float32", "256 KB float32"]
    for line in lines[:2]:
        assert len(re.findall(r"\d+\.\d{3} ms +\d+\.\d\d GB/s", line)) == len(kinds)
    assert re.fullmatch(r"dtrain chooses \w+ \(2 ranks on one host\)", lines[-1])
    left_out = [line.partition(":")[0] for line in lines[2:-1]]
    assert sorted(kinds + left_out) == sorted(COMMUNICATORS)
