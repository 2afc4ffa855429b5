"""Saying something once for all ranks, told apart by the variables of a launcher."""

from __future__ import annotations

import secrets

import pytest

from dtrain.launcher import once
from dtrain.launcher.once import say_once


def test_say_once_outside_a_launcher_prints_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    say_once("first")
    say_once("second")
    assert capsys.readouterr().err == "first\nsecond\n"


def test_say_once_on_ranks_of_one_launch_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(once.time, "sleep", waits.append)
    monkeypatch.setenv("PMIX_NAMESPACE", secrets.token_hex(8))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    for rank in ("1", "0", "2"):
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
        say_once(f"from rank {rank}")
    assert capsys.readouterr().err == "from rank 1\n"
    assert len(waits) == 2
    assert min(waits) > 0
