"""Whatever befalls a rank, the whole job ends, says why in one line, and goes on from its snapshot to the same bits.

`make faults` lets more faults happen. From the environment: DTRAIN_FAULTS, the number of random faults (12, one of
each kind), and DTRAIN_FAULTS_SEED (1); fault k of a seed is the same however many there are.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.bench import Bench, Run
from tests.faults.expectations import EXIT_CLUSTER, FAILURE_LINE, expected_exit_code, expected_line
from tests.faults.fault import KINDS, MAX_ITER, REQUESTS, SNAPSHOT_EVERY, Fault, draw_fault, from_text
from tests.faults.job import run_job
from tests.faults.saboteur import SLOW

NUM_FAULTS = int(os.environ.get("DTRAIN_FAULTS", str(len(KINDS))))
SEED = int(os.environ.get("DTRAIN_FAULTS_SEED", "1"))

# How soon after the fault the last process must be gone. Promised for a machine that is not swamped, hence asked for
# by `make faults` alone.
PROMISED_S, PROMISED_OF_STOPPED_S = 10.0, 30.0
IS_STRICT = "DTRAIN_FAULTS" in os.environ

SMALL_DISK_BYTES = 32 * 2**10  # a snapshot's files take 4 kB of it each

Report = Callable[[str], None]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return what runs the jobs of this file."""
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("index", range(NUM_FAULTS))
def test_random_fault_ends_the_job_with_one_line_and_it_goes_on_to_the_same_bits(
    bench: Bench, report: Report, index: int
) -> None:
    fault = draw_fault(SEED, index)
    endure(bench, fault, f"fault{index}", report, f"fault {index} of seed {SEED}")


def endure(bench: Bench, fault: Fault, name: str, report: Report, title: str) -> None:
    """Let `fault` befall a job, judge its end, and let it go on."""
    bench.write(name)
    run = bench.run(name, fault.num_ranks, fault)
    judge(bench, fault, name, run, f"{title}, {fault}; log: {bench.log_path(name)}")
    resumed_at = go_on(bench, fault.num_ranks, name)
    report(
        f"{title}: {fault}: exit code {run.ended.exit_code} after {run.seconds:.1f} s; "
        f"from iteration {resumed_at} on to the same bits"
    )


def judge(bench: Bench, fault: Fault, name: str, run: Run, title: str) -> None:
    """Assert that a job ended as it must."""
    ended = run.ended
    story = f"{title}\n{ended.log}"
    assert run.was_hit or fault.place == "launch", f"nothing happened: {story}"
    assert ended.exit_code == expected_exit_code(fault), f"exit code {ended.exit_code}: {story}"
    assert not ended.orphans, f"left behind: {ended.orphans}: {story}"
    lines = FAILURE_LINE.findall(ended.log)
    if fault.kind in REQUESTS:
        assert not lines, story
        assert "Stopped at iteration" in ended.log, story
    else:
        expected = expected_line(fault, socket.gethostname())
        lines = [line for line in ended.log.splitlines() if re.fullmatch(expected, line)]
        # One mistake, one line: a database that is not there is one in each of the two nets.
        assert len(lines) == (2 if fault.kind == "database" else 1), (
            f"{len(lines)} lines like {expected}: {story}"
        )
    if IS_STRICT and run.was_hit:
        assert run.seconds < (PROMISED_OF_STOPPED_S if fault.kind == "stop" else PROMISED_S), story
    check_snapshots(bench, name)


def check_snapshots(bench: Bench, name: str, prefix: Path | None = None) -> None:
    """Assert that every snapshot with a manifest is whole."""
    store = bench.store(name, prefix)
    for iteration in store.iterations():
        if store.manifest(iteration) is not None:
            store.find(iteration)


def go_on(bench: Bench, num_ranks: int, name: str, prefix: Path | None = None) -> int:
    """Take the job up, assert that it ends with the values of one that was not disturbed; return where it went on."""
    again = bench.run(name, num_ranks, flags=["--resume", "auto"])
    assert again.ended.exit_code == 0, again.ended.log
    assert_same_values(bench, num_ranks, name, prefix)
    found = re.search(r"Restored .*: iteration (\d+)", again.ended.log)
    return int(found[1]) if found else 0


def assert_same_values(bench: Bench, num_ranks: int, name: str, prefix: Path | None = None) -> None:
    """Assert that the job has ended with the bits of one that was not disturbed, and left no temporary files."""
    values, expected = bench.final_values(name, prefix), bench.reference(num_ranks)
    assert len(values) == len(expected)
    for mine, theirs in zip(values, expected, strict=True):
        assert mine.tobytes() == theirs.tobytes(), bench.log_path(name).read_text()
    store = bench.store(name, prefix)
    assert not list(store.model_path(0).parent.glob(f"{name}_iter_*.partial"))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("kill", "backward", num_ranks=3, rank=1, iteration=6, hits_supervisor=True),
        Fault("kill", "snapshot", num_ranks=2, rank=0, iteration=8, step=4, hits_supervisor=True),
    ],
    ids=["in backward", "in a snapshot"],
)
def test_killed_supervisor_takes_its_rank_and_the_job_with_it(
    bench: Bench, report: Report, fault: Fault
) -> None:
    name = f"unwatched{fault.num_ranks}"
    bench.write(name)
    run = bench.run(name, fault.num_ranks, fault)
    assert run.was_hit, run.ended.log
    assert run.ended.exit_code not in (None, 0), run.ended.log
    assert not run.ended.orphans, run.ended.log
    check_snapshots(bench, name)
    resumed_at = go_on(bench, fault.num_ranks, name)
    report(
        f"{fault}: exit code {run.ended.exit_code} after {run.seconds:.1f} s; "
        f"from iteration {resumed_at} on to the same bits"
    )


def test_slow_rank_is_named_the_straggler_and_nothing_ends(bench: Bench, report: Report) -> None:
    bench.write("slow")
    run = bench.run("slow", 3, Fault(SLOW, "python", num_ranks=3, rank=2))
    assert run.ended.exit_code == 0, run.ended.log
    lines = [line for line in run.ended.log.splitlines() if "straggler" in line]
    assert len(lines) == 1, run.ended.log
    assert f"rank 2 ({socket.gethostname()}) is the straggler" in lines[0]
    assert_same_values(bench, 3, "slow")
    report(f"a slow rank: {lines[0].partition('] ')[2]}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of its own, which is full after a snapshot or two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_ends_the_job_and_with_more_room_it_goes_on(
    bench: Bench, report: Report, small_disk: Path
) -> None:
    bench.write("full", f'snapshot_prefix: "{small_disk}/full"')
    run = bench.run("full", 2)
    story = run.ended.log
    assert run.ended.exit_code == EXIT_CLUSTER, story
    host = re.escape(socket.gethostname())
    full = (
        rf"rank 0 of 2 \({host}\) failed at iteration \d+ while .+: cannot write snapshot .+: No space left"
    )
    assert len(re.findall(full, story)) == 1, story
    assert not run.ended.orphans
    check_snapshots(bench, "full", small_disk / "full")
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    resumed_at = go_on(bench, 2, "full", small_disk / "full")
    assert resumed_at >= SNAPSHOT_EVERY
    report(f"a full disk: exit code {run.ended.exit_code}; from iteration {resumed_at} on to the same bits")


def test_database_cut_short_while_it_is_read_ends_the_job_with_one_line(
    tmp_path: Path, report: Report
) -> None:
    own = Bench(tmp_path)  # its database will not be whole
    own.write("cut")
    whole = (tmp_path / "data" / "lmdb" / "data.mdb").read_bytes()
    run = own.run("cut", 2, Fault("truncation", "python", num_ranks=2, rank=1, iteration=6))
    story = run.ended.log
    assert run.was_hit, story
    assert run.ended.exit_code == EXIT_CLUSTER, story
    lines = FAILURE_LINE.findall(story)
    assert len(lines) == 1, story
    assert "was killed by SIGBUS at iteration" in lines[0]
    assert not run.ended.orphans
    (tmp_path / "data" / "lmdb" / "data.mdb").write_bytes(whole)
    resumed_at = go_on(own, 2, "cut")
    report(f"a database cut short: {lines[0]}; from iteration {resumed_at} on to the same bits")


def test_draw_fault_gives_each_kind_once_in_a_row_and_the_same_again() -> None:
    for seed in range(5):
        faults = [draw_fault(seed, index) for index in range(3 * len(KINDS))]
        for k in range(3):
            row = faults[k * len(KINDS) : (k + 1) * len(KINDS)]
            assert {fault.kind for fault in row} == set(KINDS)
        assert faults == [draw_fault(seed, index) for index in range(len(faults))]
        for fault in faults:
            assert fault.place in KINDS[fault.kind]
            assert 0 <= fault.rank < fault.num_ranks <= 4
            assert 0 <= fault.iteration < MAX_ITER
            assert from_text(fault.to_text()) == fault
    assert len({draw_fault(1, index) for index in range(200)}) > 190


def test_run_job_that_hangs_is_ended_and_what_it_leaves_behind_is_named(tmp_path: Path) -> None:
    hanging = run_job(["sleep", "60"], os.environ, tmp_path, hang_s=0.2)
    assert (hanging.exit_code, hanging.orphans) == (None, ("sleep 60",))
    leaving = run_job(["sh", "-c", "setsid sleep 61 & exit 7"], os.environ, tmp_path, linger_s=2.0)
    assert (leaving.exit_code, leaving.orphans) == (7, ("sleep 61",))
