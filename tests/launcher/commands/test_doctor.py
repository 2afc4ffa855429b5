"""dtrain doctor: findings in, lines and exit code out."""

from __future__ import annotations

import pytest

from dtrain.launcher.commands import doctor
from dtrain.launcher.diagnosis import Finding
from dtrain.launcher.main import main


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
