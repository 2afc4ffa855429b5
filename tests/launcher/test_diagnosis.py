"""What doctor finds, on this machine and on made-up ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtrain.core.engines.cudnn import library as cudnn_library
from dtrain.core.engines.cupy import devices
from dtrain.core.engines.onednn import library
from dtrain.core.engines.onednn.library import Library
from dtrain.core.errors import MissingLibrary, UserError
from dtrain.launcher import diagnosis
from dtrain.launcher.diagnosis import (
    Finding,
    diagnose,
    examine_cudnn,
    examine_disk,
    examine_gpus,
    examine_module,
    examine_mpi,
    examine_numpy,
    examine_onednn,
    find_driver_version,
    find_models,
    judge_mpi,
)
from dtrain.launcher.threads import THREAD_VARIABLES
from tests.played.cupy import play_cupy


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


def enter_gpu(driver: Path, address: str, text: str) -> None:
    (driver / "gpus" / address).mkdir(parents=True)
    (driver / "gpus" / address / "information").write_text(text)


def test_find_models_without_driver_is_empty(tmp_path: Path) -> None:
    assert find_models(tmp_path / "absent") == []


def test_find_models_are_in_the_order_of_addresses(tmp_path: Path) -> None:
    enter_gpu(tmp_path, "0000:41:00.0", "Model: \t\t NVIDIA H200\nIRQ: 7\n")
    enter_gpu(tmp_path, "0000:03:00.0", "IRQ: 5\nModel: Tesla T4\n")
    enter_gpu(tmp_path, "0000:82:00.0", "IRQ: 5\n")
    assert find_models(tmp_path) == ["Tesla T4", "NVIDIA H200", "unknown model (0000:82:00.0)"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n",
            "535.129.03",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
            "GCC version:  gcc version 12.2.0\n",
            "580.65.06",
        ),
        ("something else", "unknown"),
        (None, "unknown"),
    ],
)
def test_find_driver_version_in_what_the_driver_says(tmp_path: Path, text: str | None, version: str) -> None:
    if text is not None:
        (tmp_path / "version").write_text(text)
    assert find_driver_version(tmp_path) == version


def test_examine_gpus_names_them_and_all_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    play_cupy(monkeypatch, num_devices=2)
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n"
    )
    monkeypatch.setattr(devices, "find_nccl", lambda: "2.27.3")
    monkeypatch.setattr(diagnosis, "examine_cudnn", lambda: Finding("GPU engine", "left out here"))
    assert list(examine_gpus(tmp_path)) == [
        Finding("GPU 0", "Played 0, 7.5 of 8.6 GB free, compute capability 9.0, 0000:00:00.0"),
        Finding("GPU 1", "Played 1, 7.5 of 8.6 GB free, compute capability 9.0, 0000:01:00.0"),
        Finding("CUDA", "cupy played, CUDA runtime 13.2, driver's CUDA 13.0, driver 535.129.03"),
        Finding("GPU engine", "left out here"),
        Finding("NCCL", "2.27.3"),
    ]


def test_examine_gpus_without_nccl_says_how_gradients_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def find() -> str:
        raise UserError("nccl: cupy must find libnccl.so.2, found none")

    play_cupy(monkeypatch)
    monkeypatch.setattr(devices, "find_nccl", find)
    text = "none, so gradients go by way of the host: nccl: cupy must find libnccl.so.2, found none"
    assert list(examine_gpus(tmp_path))[-1] == Finding("NCCL", text)


def test_examine_gpus_that_can_not_be_used_names_them_and_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play_cupy(monkeypatch, num_devices=0)
    (finding,) = examine_gpus(tmp_path)
    assert finding.text.startswith("none found: CUDA must find a GPU that it can use, got")
    enter_gpu(tmp_path, "0000:41:00.0", "Model: NVIDIA H200\n")
    (finding,) = examine_gpus(tmp_path)
    assert finding.text.startswith("NVIDIA H200, not to be used: CUDA must find a GPU that it can use, got")
    assert finding.problem == ""


def test_examine_cudnn_names_its_version_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cudnn_library.Library(None, "/x/libcudnn.so.9", "9.28.0")
    monkeypatch.setattr(cudnn_library, "load_library", lambda environment: found)
    assert examine_cudnn() == Finding("GPU engine", "cudnn: cuDNN 9.28.0 (/x/libcudnn.so.9)")


@pytest.mark.parametrize(
    ("error", "problem"),
    [(MissingLibrary("no cuDNN"), ""), (UserError("cuDNN is broken"), "cuDNN is broken")],
)
def test_examine_cudnn_that_can_not_be_had_leaves_cupy(
    monkeypatch: pytest.MonkeyPatch, error: UserError, problem: str
) -> None:
    def load(environment: object) -> None:
        raise error

    monkeypatch.setattr(cudnn_library, "load_library", load)
    finding = examine_cudnn()
    assert finding.text.startswith("cupy, the slower one")
    assert finding.problem == problem


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
    play_cupy(monkeypatch, num_devices=0)
    findings = {finding.subject: finding for finding in diagnose()}
    assert list(findings) == [
        *("Python", "platform", "cores", "threads per rank", "numpy", "CPU engine"),
        *("protobuf", "lmdb"),
        *("MPI", "GPU", "disk"),
    ]
    assert sys.executable in findings["Python"].text
