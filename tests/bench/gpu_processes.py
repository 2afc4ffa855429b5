"""Processes that the benchmark of GPUs asks, of which none may cost the others their time: all have a time-out."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from measuring import PROGRAMS
from nets import Turns

TOTAL_S = 510.0  # what is not begun by then is not measured
ANSWER_S = 150.0  # what an answer may take; torch.compile's first is the longest


class Failed(Exception):
    """A process has failed or does not answer; in words, what it said last."""


class Process(Turns):
    """A process that takes turns, and whose answers are waited for only so long."""

    def __init__(self, deadline: Deadline, environment: dict[str, str], program: str, *args: object) -> None:
        self._deadline = deadline
        self._program = program
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when the process is)
        self._process = subprocess.Popen(
            [sys.executable, os.fspath(PROGRAMS / program), *map(str, args)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._said.close()

    def ready(self) -> None:
        """Wait for the first line."""
        self._read()

    def ask(self, line: object) -> Any:
        """Return the process's answer. Raises Failed."""
        assert self._process.stdin is not None
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        return self._read()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _read(self) -> Any:
        try:
            answer = self._answers.get(timeout=self._deadline.at_most(ANSWER_S))
        except queue.Empty:
            raise Failed(f"{self._program} did not answer in time") from None
        if not answer:
            raise Failed(self._last_words())
        return json.loads(answer)

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()[-3:]
        return f"{self._program} failed: " + " / ".join(line.strip()[:200] for line in lines)


@dataclass(frozen=True)
class Deadline:
    """When all must be over. began: by time.monotonic."""

    total_s: float = TOTAL_S
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """How long there is."""
        return self.total_s - (time.monotonic() - self.began)

    def at_most(self, seconds: float) -> float:
        """Return a time-out that is over by then."""
        return max(1.0, min(seconds, self.left_s + 20.0))


def run(deadline: Deadline, environment: dict[str, str], program: str, *args: object) -> str:
    """Return what a program prints. Raises Failed."""
    command = [sys.executable, os.fspath(PROGRAMS / program), *map(str, args)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=deadline.at_most(ANSWER_S),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{program} did not end in time") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()[-3:]
        raise Failed(f"{program} failed: " + " / ".join(line.strip()[:200] for line in lines))
    return done.stdout.strip()
