"""Reading in the large: any message as text and back, in any spelling, and damaged files of every format.

`make fuzz` runs more inputs. From the environment: DTRAIN_FUZZ_INPUTS, the number of inputs of each test (200), and
DTRAIN_FUZZ_SEED (1), which a failure names together with the input.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from dtrain.core.errors import UserError
from dtrain.core.graph.graph import build_graph
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.prototxt import parse_text, write_text
from dtrain.proto import caffe_pb2
from tests.conftest import ROOT
from tests.fuzzing import batch
from tests.fuzzing.batch import Outcome, make_input
from tests.fuzzing.format import Format
from tests.fuzzing.formats import FORMATS
from tests.fuzzing.messages import messages
from tests.fuzzing.spelling import Speller

NUM_INPUTS = int(os.environ.get("DTRAIN_FUZZ_INPUTS", "200"))
SEED = int(os.environ.get("DTRAIN_FUZZ_SEED", "1"))
REPEAT = f"DTRAIN_FUZZ_SEED={SEED} DTRAIN_FUZZ_INPUTS={NUM_INPUTS}"

FILES: st.SearchStrategy[Message] = messages(caffe_pb2.NetParameter, caffe_pb2.SolverParameter)


def fuzzed(*strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Return a decorator that runs a test on NUM_INPUTS inputs, the same ones for the same seed."""

    def decorate(test: Callable[..., None]) -> Callable[[], None]:
        few = settings(
            max_examples=NUM_INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        return seed(SEED)(few(given(*strategies)(test)))

    return decorate


def content_of(message: Message) -> bytes:
    """Return what a message holds; unlike ==, with NaN as a value and -0 apart from 0."""
    return message.SerializeToString(deterministic=True)


@fuzzed(FILES)
def test_any_message_written_as_text_is_read_back_equal(message: Message) -> None:
    note(REPEAT)
    text = write_text(message)
    again = parse_text(text, type(message)).message
    assert content_of(again) == content_of(message)
    assert write_text(again) == text


@fuzzed(FILES, st.integers(0, 2**32 - 1))
def test_any_message_in_any_spelling_is_read_equal(message: Message, way: int) -> None:
    note(REPEAT)
    text = Speller(Random(way)).spell(message)
    assert content_of(parse_text(text, type(message)).message) == content_of(message), text
    try:
        of_protobuf = text_format.Parse(text, type(message)())
    except text_format.ParseError:
        return  # it takes less than the format allows, such as no 0x1 for true
    assert content_of(of_protobuf) == content_of(message), text


@fuzzed(messages(caffe_pb2.NetParameter), st.sampled_from([caffe_pb2.TRAIN, caffe_pb2.TEST]))
def test_any_net_is_upgraded_and_connected_or_refused(message: Message, phase: int) -> None:
    note(REPEAT)
    document = parse_text(write_text(message), caffe_pb2.NetParameter)
    with contextlib.suppress(UserError):
        build_graph(upgrade_net(document), caffe_pb2.NetState(phase=phase))  # type: ignore[arg-type]


def test_spellings_of_a_message_differ_and_protobuf_takes_most() -> None:
    solver = caffe_pb2.SolverParameter(base_lr=0.5, lr_policy="fixed", max_iter=64, stepvalue=[8, 9])
    solver.net_param.name = "a net"
    texts = {Speller(Random(i)).spell(solver) for i in range(100)}
    assert len(texts) > 90
    parsed = [_taken_by_protobuf(text) for text in texts]
    assert sum(parsed) > 70


def _taken_by_protobuf(text: str) -> bool:
    try:
        text_format.Parse(text, caffe_pb2.SolverParameter())
    except text_format.ParseError:
        return False
    return True


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the damaged files of each format that is to be tested and whose packages are there."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = [
        item.callspec.params["name"]
        for item in items
        if item.function is test_damaged_file_is_read_or_refused
    ]
    there = [name for name in names if all(map(importlib.util.find_spec, FORMATS[name].needs))]
    folder = tmp_path_factory.mktemp("damaged")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzzing.batch", str(SEED), str(NUM_INPUTS), str(folder), *there],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_file_is_read_or_refused(name: str, outcomes: dict[str, Any], tmp_path: Path) -> None:
    if name not in outcomes:
        pytest.skip(f"needs {', '.join(FORMATS[name].needs)}")
    outcome = Outcome(**outcomes[name])
    for index, words in outcome.failures:
        pytest.fail(f"{words}\n{how_to_repeat(FORMATS[name], index, tmp_path)}")
    assert outcome.num_read + outcome.num_refused == NUM_INPUTS
    assert outcome.num_refused > NUM_INPUTS / 20


def how_to_repeat(format: Format, index: int, folder: Path) -> str:
    """Return the lines that name an input, and hold it; -1: before the first one."""
    if index < 0:
        return f"format {format.name}, before any damage"
    content = make_input(format, format.make(folder), SEED, index)
    packed = base64.b64encode(zlib.compress(content)).decode()
    return (
        f"format {format.name}, {REPEAT}, input {index} of {len(content)} bytes: "
        f"{content[:200]!r}\nall of it: zlib.decompress(base64.b64decode({packed!r}))"
    )


def _make_one(folder: Path) -> list[bytes]:
    return [b"whole"]


def _read_or(end: Callable[[], object]) -> Callable[[Path], object]:
    return lambda path: path.read_bytes() == b"whole" or end()


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "reading ends in SIGKILL"),
        (lambda: time.sleep(60), "reading hangs"),
        (lambda: sys.exit(3), "reading ends in exit code 3"),
        (lambda: 1 // 0, "ZeroDivisionError"),
        (lambda: bytearray(1 << 40), "MemoryError"),
    ],
)
def test_damaged_file_that_ends_its_process_or_raises_is_named(
    end: Callable[[], object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format = Format("sample", "sample", _make_one, _read_or(end))
    monkeypatch.setitem(FORMATS, "sample", format)
    if words == "reading hangs":
        monkeypatch.setattr(batch, "START_S", 1.0)
    outcome = batch.run_formats(SEED, 3, tmp_path, ["sample"])["sample"]
    index, found = outcome.failures[0]
    assert words in found
    assert f"format sample, {REPEAT}, input {index} of " in how_to_repeat(format, index, tmp_path)
