"""dtrain doctor: findings in, lines and exit code out; with --bench, the table of an mpirun."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from dtrain.dist.errors import LaunchError
from dtrain.launcher.commands import doctor
from dtrain.launcher.diagnosis import Finding
from dtrain.launcher.main import main
from dtrain.launcher.mpirun import mpirun_settings

# For any user, and for more ranks than cores.
ANY_MACHINE = mpirun_settings(num_ranks=2, num_cores=1, is_root=True)

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("findings", "code", "text"),
    [
        ([Finding("Python", "3.11")], 0, "Python:            3.11\nok\n"),
        (
            [Finding("disk", "full", "/x must have 1 GB free"), Finding("GPU", "none")],
            2,
            "disk:              full\nGPU:               none\n/x must have 1 GB free\n",
        ),
    ],
)
def test_doctor_prints_findings_then_problems(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[Finding],
    code: int,
    text: str,
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: iter(findings))
    assert main(["doctor"]) == code
    assert capsys.readouterr().out == text


def test_doctor_with_bench_prints_findings_table_and_ok(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: iter([Finding("Python", "3.11")]))
    monkeypatch.setattr(doctor.os, "environ", {**doctor.os.environ, **ANY_MACHINE})
    assert main(["doctor", "--bench", "--ranks", "3", "--largest", "1"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "Python:            3.11"
    assert lines[1].startswith("all_reduce of 3 ranks on one host")
    assert lines[5].startswith("1 MB float32")
    assert lines[-2].startswith("dtrain chooses ")
    assert lines[-1] == "ok"


@pytest.mark.parametrize(
    ("mpirun", "problem"),
    [("/bin/false", "mpirun must end with code 0, got 1"), (None, "mpirun must be beside")],
)
def test_doctor_with_bench_that_fails_says_so_after_the_findings(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    mpirun: str | None,
    problem: str,
) -> None:
    def find() -> str:
        if mpirun is None:
            raise LaunchError("mpirun must be beside python")
        return mpirun

    monkeypatch.setattr(doctor, "diagnose", lambda: iter([Finding("Python", "3.11")]))
    monkeypatch.setattr(doctor, "find_mpirun", find)
    assert main(["doctor", "--bench"]) == 2
    first, last = capfd.readouterr().out.splitlines()
    assert first == "Python:            3.11"
    assert problem in last


def test_doctor_with_bench_that_never_ends_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sleeper = tmp_path_factory.mktemp("bin") / "mpirun"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(doctor, "find_mpirun", lambda: str(sleeper))
    monkeypatch.setattr(doctor, "_BENCH_TIMEOUT_S", 0.2)
    assert doctor.start_measuring(2, 1).endswith("2 ranks must end within 0.2 s, got no end")


def test_doctor_under_mpirun_speaks_once_and_measures_its_ranks(mpirun: Mpirun) -> None:
    result = mpirun(2, ["-m", "dtrain", "doctor", "--bench", "--largest", "1"], timeout_s=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("all_reduce of 2 ranks") == 1
    assert "Python:" not in result.stdout
