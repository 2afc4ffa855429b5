"""What doctor finds, on this machine and on made-up ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtrain.core.engines.onednn import library
from dtrain.core.engines.onednn.library import Library, MissingLibrary
from dtrain.launcher import diagnosis
from dtrain.launcher.diagnosis import (
    Finding,
    diagnose,
    examine_disk,
    examine_module,
    examine_mpi,
    examine_numpy,
    examine_onednn,
    judge_mpi,
)
from dtrain.launcher.threads import THREAD_VARIABLES


def test_examine_module_that_is_missing_says_how_to_get_it() -> None:
    finding = examine_module("no_such_module", "thing")
    assert finding.text == "missing"
    assert finding.problem == "thing must be there, got: No module named 'no_such_module'; pip install dtrain"


def test_examine_numpy_names_its_version_and_blas() -> None:
    import numpy as np

    finding = examine_numpy()
    assert finding.text.startswith(f"{np.__version__}, BLAS ")
    assert finding.problem == ""


def test_examine_onednn_that_is_missing_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_none(environment: object) -> None:
        raise MissingLibrary("engine onednn needs oneDNN 3, got none; install it")

    monkeypatch.setattr(library, "load_library", load_none)
    text = "reference, the slower one: engine onednn needs oneDNN 3, got none; install it"
    assert examine_onednn() == Finding("CPU engine", text)


@pytest.mark.parametrize(
    ("has_bf16", "text"), [(True, "bf16"), (False, "no bf16: this CPU has no avx512_bf16")]
)
def test_examine_onednn_says_whether_there_is_bf16(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, text: str
) -> None:
    found = Library(None, "/x/libdnnl.so.3", "3.2.0", "OpenMP", has_bf16)  # type: ignore[arg-type]
    monkeypatch.setattr(library, "load_library", lambda environment: found)
    text = f"onednn: oneDNN 3.2.0, OpenMP threads, {text} (/x/libdnnl.so.3)"
    assert examine_onednn() == Finding("CPU engine", text)


def test_examine_onednn_that_does_not_load_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "libdnnl.so.3"
    path.write_text("not a library")
    monkeypatch.setenv(library.VARIABLE, str(path))
    assert examine_onednn().problem.startswith(f"{path} must be a library that can be loaded, got: ")


@pytest.mark.parametrize(
    ("exit_code", "stdout", "stderr", "problem"),
    [
        (0, "ranks 2\n", "", ""),
        (0, "ranks 1\nranks 1\n", "", "said: nothing"),
        (2, "", "\nmpirun belongs to another MPI\nmore\n", "it said: mpirun belongs to another MPI"),
    ],
)
def test_judge_mpi_by_what_two_ranks_say(exit_code: int, stdout: str, stderr: str, problem: str) -> None:
    finding = judge_mpi("/x/mpirun", exit_code, stdout, stderr)
    assert finding.problem.endswith(problem)
    assert bool(finding.problem) == bool(problem)


def test_examine_mpi_without_mpi4py_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.importlib.util, "find_spec", lambda name: None)
    assert examine_mpi() == Finding("MPI", "none, so one rank only; for more: pip install 'dtrain[mpi]'")


def test_examine_mpi_with_a_false_mpirun_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_mpirun", lambda: "/bin/false")
    assert "/bin/false must start two ranks" in examine_mpi().problem


@pytest.mark.parametrize(
    ("free_bytes", "problem"),
    [(5 * 10**9, ""), (10**8, "/data must have 1 GB free for snapshots, got 0.1 GB")],
)
def test_examine_disk_by_free_space(free_bytes: int, problem: str) -> None:
    assert examine_disk("/data", free_bytes).problem == problem


def test_diagnose_here_looks_at_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(diagnosis, "examine_mpi", lambda: Finding("MPI", "left out here"))
    findings = {finding.subject: finding for finding in diagnose()}
    assert list(findings) == [
        *("Python", "platform", "cores", "threads per rank", "numpy", "CPU engine"),
        *("protobuf", "lmdb"),
        *("MPI", "GPU", "GPU engine", "disk"),
    ]
    assert sys.executable in findings["Python"].text
