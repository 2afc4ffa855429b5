"""A rank's share of its host, from tables of machines: affinities, cgroups, launchers and their processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtrain.dist.cores import (
    Cores,
    Share,
    fair_num_threads,
    launcher_pid,
    look_at,
    num_threads_of,
    own_share,
    quota_of,
    share_of,
)


def openmpi(local_size: int) -> dict[str, str]:
    """Return what Open MPI tells a rank."""
    size = str(local_size)
    return {
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": size,
        "OMPI_COMM_WORLD_LOCAL_SIZE": size,
    }


def srun(local_size: int, num_processors: int) -> dict[str, str]:
    """Return what Slurm tells a rank of a step that has so many processors on this node."""
    return {
        "SLURM_PROCID": "0",
        "SLURM_STEP_NUM_TASKS": str(local_size),
        "SLURM_STEP_TASKS_PER_NODE": str(local_size),
        "SLURM_CPUS_ON_NODE": str(num_processors),
    }


@pytest.mark.parametrize(
    ("usable", "available", "ranks", "expected"),
    [
        (8, 8, 1, 8),  # alone
        (8, 8, 4, 2),  # unbound ranks share
        (8, 8, 3, 2),  # what does not divide is left free
        (1, 2, 2, 1),  # mpirun has bound each of two ranks to a core: not divided twice
        (1, 64, 2, 1),
        (16, 64, 4, 16),  # bound to 16 cores of its own
        (32, 64, 4, 16),  # bound to a socket that two ranks share
        (2, 2, 8, 1),  # more ranks than cores
        (8, 16, 1, 8),  # one rank, bound to half of the cores
    ],
)
def test_fair_num_threads_on_a_machine_shares_cores_once(
    usable: int, available: int, ranks: int, expected: int
) -> None:
    assert fair_num_threads(usable, available, ranks) == expected


@pytest.mark.parametrize(
    ("env", "own", "of_launcher", "expected"),
    [
        ({}, Cores(8), Cores(8), 8),
        ({}, Cores(3), Cores(3), 3),  # taskset
        ({}, Cores(64, 4.0), Cores(64, 4.0), 4),  # a container with the time of 4
        ({}, Cores(64, 2.5), Cores(64, 2.5), 2),  # a third thread would be stopped half of the time
        ({}, Cores(64, 0.5), Cores(64, 0.5), 1),
        ({}, Cores(2, 4.0), Cores(2, 4.0), 2),
        (openmpi(4), Cores(8), Cores(8), 2),
        (openmpi(4), Cores(16), Cores(64), 16),  # a set of its own
        (openmpi(2), Cores(1), Cores(64), 1),  # bound to a core each
        (openmpi(4), Cores(64, 8.0), Cores(64, 8.0), 2),  # all in one container
        (openmpi(4), Cores(64, 8.0), Cores(64), 8),  # a container each
        (openmpi(2), Cores(16), Cores(1), 8),  # a launcher that is bound while its ranks are not
        (openmpi(8), Cores(2), Cores(2), 1),
        (srun(4, 8), Cores(64), Cores(64), 2),  # Slurm does not bind, and its daemon has the whole node
        (srun(4, 8), Cores(2), Cores(64), 2),
        (srun(1, 8), Cores(64), Cores(64), 8),
        ({"SLURM_CPUS_ON_NODE": "8"}, Cores(64), Cores(64), 64),  # a shell that is no rank
        ({**openmpi(2), "SLURM_CPUS_ON_NODE": "8"}, Cores(64), Cores(64), 4),  # mpirun in a job of Slurm's
    ],
)
def test_share_of_a_rank_is_what_is_its_own_or_its_part(
    env: dict[str, str], own: Cores, of_launcher: Cores, expected: int
) -> None:
    assert share_of(env, own, of_launcher).num_cores == expected


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (Share(Cores(2), Cores(2)), "2: this rank may use 2 processors"),
        (Share(Cores(1), Cores(1)), "1: this rank may use 1 processor"),
        (
            Share(Cores(64, 2.5), Cores(64, 2.5)),
            "2: this rank may use 64 processors, of their time that of 2.5",
        ),
        (
            Share(Cores(8), Cores(8), 4),
            "2: this rank may use 8 processors; the 4 ranks of this host together 8 processors",
        ),
        (
            Share(Cores(64), Cores(8)),
            "8: this rank may use 64 processors; all ranks of this host together 8 processors",
        ),
    ],
)
def test_share_as_text_says_why(share: Share, text: str) -> None:
    assert str(share) == text


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, None),
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, 4),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 50000\n", "a/cpu.max": "400000 100000\n"}, 1),
        ("0::/a/b\n", {"cpu.max": "300000 100000\n"}, 3),  # a container sees its own group at the root
        ("0::/../b\n", {"cpu.max": "300000 100000\n"}, 3),  # a process beside the container's
        ("0::/a:b\n", {"a:b/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "200000\n"}, None),
        ("0::/\n", {"cpu.max": "lots and lots\n"}, None),
        ("0::/\n", {"cpu.max": "200000 0\n"}, None),
        # version 1
        ("4:memory:/m\n3:cpuset:/s\n", {"s/cpu.cfs_quota_us": "200000"}, None),
        ("1:cpu:/c\n", {"cpu/c/cpu.cfs_quota_us": "-1\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, None),
        ("1:cpu:/c\n", {"cpu/c/cpu.cfs_quota_us": "250000\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("2:cpu,cpuacct:/c\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 2),
        (
            "1:cpu:/c\n0::/c\n",  # both versions, of which one has the controller
            {"cpu/c/cpu.cfs_quota_us": "300000\n", "cpu/c/cpu.cfs_period_us": "100000\n"},
            3,
        ),
    ],
)
def test_quota_of_cgroups_is_the_least_on_the_way_to_the_root(
    groups: str, files: dict[str, str], expected: float | None
) -> None:
    assert quota_of(groups, lambda path: files.get(path, "")) == expected


def test_look_at_reads_affinity_and_cgroup_of_a_process(tmp_path: Path) -> None:
    pid = os.getpid()
    (tmp_path / str(pid)).mkdir()
    (tmp_path / str(pid) / "cgroup").write_text("0::/here\n")
    (tmp_path / "groups/here").mkdir(parents=True)
    (tmp_path / "groups/here/cpu.max").write_text("175000 100000\n")
    expected = Cores(len(os.sched_getaffinity(0)), 1.75)
    assert look_at(pid, tmp_path, str(tmp_path / "groups")) == expected


def test_look_at_this_process_sees_what_it_is_bound_to() -> None:
    program = """
import os
from dtrain.dist.cores import look_at
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(look_at(0).num_processors)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1\n"


def test_look_at_no_process_counts_all_processors(tmp_path: Path) -> None:
    assert look_at(2**22 + 1, tmp_path) == Cores(os.cpu_count() or 1)


def write_process(proc: Path, pid: int, parent: int, environ: str | None) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1 0")
    if environ is not None:
        (proc / str(pid) / "environ").write_text(environ)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (openmpi(2), 20),  # above a shell and a supervisor
        ({}, 40),  # not launched: whoever started it
    ],
)
def test_launcher_pid_is_the_nearest_that_is_no_rank(
    tmp_path: Path, env: dict[str, str], expected: int
) -> None:
    rank = "HOME=/\0OMPI_COMM_WORLD_RANK=0\0"
    write_process(tmp_path, 10, 1, "HOME=/\0")
    write_process(tmp_path, 20, 10, "NOT_OMPI_COMM_WORLD_RANK=0\0OMPI_COMM_WORLD_RANKS=2\0")
    write_process(tmp_path, 30, 20, rank)
    write_process(tmp_path, 40, 30, rank)
    assert launcher_pid(env, 40, tmp_path) == expected


def test_launcher_pid_of_a_daemon_that_may_not_be_looked_into_is_the_daemon(tmp_path: Path) -> None:
    write_process(tmp_path, 10, 1, None)
    write_process(tmp_path, 20, 10, "SLURM_PROCID=0\0")
    assert launcher_pid(srun(1, 1), 20, tmp_path) == 10


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("12", 12)])
def test_num_threads_of_an_environment_that_says_so_is_that(given: str, expected: int) -> None:
    assert num_threads_of({"OMP_NUM_THREADS": given}) == expected


@pytest.mark.parametrize("env", [{}, {"OMP_NUM_THREADS": "0"}, {"OMP_NUM_THREADS": "many"}])
def test_num_threads_of_an_environment_that_does_not_is_the_share(env: dict[str, str]) -> None:
    assert num_threads_of(env) == own_share({}).num_cores


def test_own_share_of_one_of_many_ranks_is_one_core() -> None:
    share = own_share(openmpi(4096))
    assert (share.num_cores, share.num_ranks) == (1, 4096)
