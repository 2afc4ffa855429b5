from __future__ import annotations

import io
import sys

import pytest

from dtrain.dist.flush import flush_output


def test_flush_output_writes_what_is_buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw)))
    sys.stdout.write("late")
    assert raw.getvalue() == b""
    flush_output()
    assert raw.getvalue() == b"late"


class ClosedPipe(io.StringIO):
    def flush(self) -> None:
        raise BrokenPipeError


def test_flush_output_into_a_closed_pipe_still_flushes_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(raw)))
    sys.stderr.write("kept")
    flush_output()
    assert raw.getvalue() == b"kept"
