"""Jobs on several hosts: the communicators' suite, training to the losses of one host, and hosts that are lost.

The hosts are network namespaces of this machine; where these can't be made, all of this is skipped with the reason.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from tests.conftest import MPIRUN_ENVIRONMENT, ROOT
from tests.faults.bench import Bench
from tests.faults.expectations import EXIT_CLUSTER, FAILURE_LINE, expected_line
from tests.faults.fault import MAX_ITER, Fault
from tests.faults.job import Ended, run_job
from tests.faults.saboteur import COMMAND
from tests.hosts.two_hosts import HOST_NAMES, TwoHosts, why_not

Report = Callable[[str], None]

TIMEOUT_S = 8  # of a job that is cut off; in collective calls it is twice that
CUT_OFF = r"rank [01] of 3 \(hosta\) waited \d+ s in \w+ for other ranks at iteration \d+ while .+"

# `make faults` runs these tests too, with what is left out otherwise for its time.
FULL = pytest.mark.skipif("DTRAIN_FAULTS" not in os.environ, reason="run by make faults")

# How many ranks there are on each host; on a link as it is, and on one that is slow.
PLACEMENTS = [
    pytest.param((2, 1), "200mbit", id="2+1 on a slow link"),
    pytest.param((1, 1), "", id="1+1", marks=FULL),
    pytest.param((1, 3), "", id="1+3", marks=FULL),
    pytest.param((3, 0), "", id="3+0", marks=FULL),
    pytest.param((0, 2), "", id="0+2", marks=FULL),
]

# How many ranks there are on each host, and which one is killed.
KILLED = [
    pytest.param((2, 1), 2, id="2 of 2+1"),
    pytest.param((1, 1), 1, id="1 of 1+1", marks=FULL),
    pytest.param((1, 2), 0, id="0 of 1+2", marks=FULL),
]

SUITE = [
    *("-m", "pytest", "-q", "--color=no", "--import-mode=importlib", "-p", "no:cacheprovider"),
    *("--noconftest", "-p", "tests.hosts.real_communicators"),
]
SUITE_FILE = ROOT / "tests" / "dist" / "test_communicator.py"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    """Return two hosts with a link between them."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with TwoHosts(tmp_path_factory.mktemp("hosts")) as made:
        yield made


@pytest.fixture(autouse=True)
def _link_as_it_is(hosts: TwoHosts) -> None:
    hosts.unslow()
    hosts.mend()


def run(hosts: TwoHosts, num_on: Sequence[int], args: Sequence[str], **env: str) -> Ended:
    """Run `python *args` on num_on[i] ranks of host i."""
    environment = {**os.environ, **MPIRUN_ENVIRONMENT, "PYTHONPATH": str(ROOT), **env}
    return run_job(hosts.mpirun(num_on, [sys.executable, *args]), environment, ROOT)


@pytest.mark.parametrize(("num_on", "rate"), PLACEMENTS)
def test_communicator_suite_on_two_hosts_passes(hosts: TwoHosts, num_on: tuple[int, int], rate: str) -> None:
    if rate:
        hosts.slow(rate)
    ended = run(hosts, num_on, [*SUITE, str(SUITE_FILE)])
    assert ended.exit_code == 0, ended.log
    assert len(re.findall(r"^\d+ passed", ended.log, re.MULTILINE)) == sum(num_on), ended.log
    assert not ended.orphans


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return what runs small trainings."""
    return Bench(tmp_path_factory.mktemp("trainings"))


def placed(hosts: TwoHosts, num_on: Sequence[int]) -> Callable[[Sequence[str]], list[str]]:
    """Return what makes of a rank's command the one that starts num_on[i] ranks on host i."""
    return lambda command: hosts.mpirun(num_on, command)


def losses_of(bench: Bench, name: str) -> list[float]:
    return [
        float(loss)
        for loss in re.findall(r"Iteration \d+ \(.*\), loss = (\S+)", bench.log_path(name).read_text())
    ]


@pytest.mark.parametrize(("num_on", "rate"), PLACEMENTS)
def test_training_on_two_hosts_has_the_losses_of_one_host(
    hosts: TwoHosts, bench: Bench, num_on: tuple[int, int], rate: str
) -> None:
    if rate:
        hosts.slow(rate)
    num_ranks = sum(num_on)
    expected = bench.reference(num_ranks)
    name = f"on{num_on[0]}and{num_on[1]}"
    bench.write(name)
    run = bench.run(name, num_ranks, on=placed(hosts, num_on))
    assert run.ended.exit_code == 0, run.ended.log
    assert not run.ended.orphans
    losses = losses_of(bench, name)
    assert len(losses) == MAX_ITER
    np.testing.assert_allclose(losses, losses_of(bench, f"undisturbed{num_ranks}"), rtol=1e-5)
    for mine, theirs in zip(bench.final_values(name), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_training_with_ordered_sums_is_the_same_to_the_bit_wherever_its_ranks_are(
    hosts: TwoHosts, bench: Bench
) -> None:
    values = []
    # As many threads wherever they are: left to themselves, ranks share out the cores of their host.
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for num_on in (None, (2, 1), (1, 2), (3, 0)):
        name = f"ordered{num_on[0]}and{num_on[1]}" if num_on else "ordered"
        bench.write(name, "dtrain_param { ordered_sums: true }")
        run = bench.run(name, 3, on=placed(hosts, num_on) if num_on else None, env=env)
        assert run.ended.exit_code == 0, run.ended.log
        values.append(bench.final_values(name))
    for others in values[1:]:
        for mine, theirs in zip(others, values[0], strict=True):
            assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("num_on", "rank"), KILLED)
def test_killed_rank_ends_the_job_on_both_hosts(
    hosts: TwoHosts, bench: Bench, report: Report, num_on: tuple[int, int], rank: int
) -> None:
    fault = Fault("kill", "backward", sum(num_on), rank, iteration=6)
    name = f"killed{rank}of{num_on[0]}and{num_on[1]}"
    bench.write(name)
    run = bench.run(name, fault.num_ranks, fault, on=placed(hosts, num_on))
    story = run.ended.log
    assert run.was_hit, story
    assert run.ended.exit_code == EXIT_CLUSTER, story
    assert not run.ended.orphans, story
    assert not hosts.processes()
    lines = FAILURE_LINE.findall(story)
    host = HOST_NAMES[0 if rank < num_on[0] else 1]
    assert len([line for line in lines if re.fullmatch(expected_line(fault, host), line)]) == 1, story
    again = bench.run(name, fault.num_ranks, flags=["--resume", "auto"], on=placed(hosts, num_on))
    assert again.ended.exit_code == 0, again.ended.log
    report(
        f"{fault}, on {num_on[0]} + {num_on[1]}: exit code 3 after {run.seconds:.1f} s: {' | '.join(lines)}"
    )


@FULL
def test_cut_link_ends_the_job_by_its_time_out(hosts: TwoHosts, bench: Bench, report: Report) -> None:
    bench.write("cut")
    fault = Fault("command", "backward", num_ranks=3, rank=2, iteration=6)
    run = bench.run(
        "cut",
        3,
        fault,
        flags=["--timeout", str(TIMEOUT_S)],
        on=placed(hosts, (2, 1)),
        env={COMMAND: " ".join(hosts.cut_command())},
    )
    story = run.ended.log
    assert run.was_hit, story
    assert run.ended.exit_code == EXIT_CLUSTER, story
    # mpirun's daemon on the other side may look for it a while longer.
    assert not [orphan for orphan in run.ended.orphans if "dtrain" in orphan], story
    lines = FAILURE_LINE.findall(story)
    assert any(re.fullmatch(CUT_OFF, line) for line in lines), story
    report(f"a cut link: exit code 3 after {run.seconds:.1f} s: {' | '.join(lines)}")
