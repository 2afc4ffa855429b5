"""mpirun's path, command line and environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtrain.dist.errors import LaunchError
from dtrain.launcher.mpirun import (
    count_cores,
    find_mpirun,
    mpirun_command,
    mpirun_environment,
    mpirun_settings,
    num_physical_cores,
)

AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
CROWDED = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def make_program(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_find_mpirun_beside_python_is_taken(tmp_path: Path) -> None:
    mpirun = make_program(tmp_path / "mpirun")
    assert find_mpirun(str(tmp_path / "python")) == mpirun


def test_find_mpirun_not_beside_python_comes_from_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpirun = make_program(tmp_path / "mpirun")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mpirun("/nowhere/python") == mpirun


def test_find_mpirun_nowhere_raises_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"found none; pip install 'dtrain\[mpi\]'"):
        find_mpirun("/nowhere/python")


def test_mpirun_command_runs_this_python() -> None:
    expected = ["/x/mpirun", "-np", "2", sys.executable, "-m", "dtrain", "s.prototxt"]
    assert mpirun_command("/x/mpirun", 2, ["s.prototxt"]) == expected


@pytest.mark.parametrize(
    ("num_ranks", "num_cores", "is_root", "expected"),
    [(2, 2, False, {}), (2, 2, True, AS_ROOT), (3, 2, False, CROWDED), (2, 1, True, AS_ROOT | CROWDED)],
)
def test_mpirun_settings_hold_only_what_is_needed(
    num_ranks: int, num_cores: int, is_root: bool, expected: dict[str, str]
) -> None:
    assert mpirun_settings(num_ranks, num_cores, is_root) == expected


def test_mpirun_environment_keeps_what_the_user_set() -> None:
    environment = mpirun_environment({"HOME": "/h", "OMPI_MCA_mpi_yield_when_idle": "0"}, 100_000)
    assert environment["HOME"] == "/h"
    assert environment["OMPI_MCA_mpi_yield_when_idle"] == "0"
    assert environment["PRTE_MCA_rmaps_default_mapping_policy"] == ":oversubscribe"


def test_count_cores_with_hyperthreads_counts_each_core_once() -> None:
    assert count_cores(["0,2\n", "1,3\n", "0,2\n", "1,3\n"]) == 2


def test_num_physical_cores_reads_the_siblings(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0-1", "0-1", "2"]):
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert num_physical_cores(tmp_path) == 2
