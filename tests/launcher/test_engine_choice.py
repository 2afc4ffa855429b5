"""The engine of each rank: what options and solver file ask of it, and what is said once for all ranks."""

from __future__ import annotations

import argparse
import io
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from dtrain.core.engines import Promises
from dtrain.core.engines.cudnn.library import Library
from dtrain.core.errors import MissingLibrary
from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import run_ranks
from dtrain.dist.topology import topology_from_hosts
from dtrain.launcher.console import Console
from dtrain.launcher.engine_choice import asked_promises, differing_engines, enter_promises, take_engine
from dtrain.launcher.job import Job
from dtrain.launcher.main import main
from dtrain.proto import caffe_pb2
from tests.played.cudnn import play_cudnn
from tests.played.cupy import play_cupy


def arguments(strict_float32: bool = False, deterministic: bool = False) -> argparse.Namespace:
    return argparse.Namespace(strict_float32=strict_float32, deterministic=deterministic)


def test_asked_promises_are_those_of_the_options() -> None:
    assert asked_promises(arguments()) == Promises()
    assert asked_promises(arguments(deterministic=True)) == Promises(deterministic=True)
    assert asked_promises(arguments(strict_float32=True)) == Promises(strict_float32=True)


def test_enter_promises_adds_to_what_the_file_asks() -> None:
    solver = caffe_pb2.SolverParameter()
    solver.dtrain_param.strict_float32 = True
    enter_promises(arguments(deterministic=True), solver)
    assert solver.dtrain_param.strict_float32
    assert solver.dtrain_param.deterministic


def said_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: Sequence[int]
) -> list[str]:
    """Return what is said of the engines of three ranks with a GPU, of which those in `broken` lack cuDNN."""
    played, _ = play_cudnn(monkeypatch)
    ranks = threading.local()

    def load() -> Library:
        if ranks.own in broken:
            raise MissingLibrary("engine cudnn needs cuDNN 9, got none")
        return Library(played, "played", "9.28.0")

    monkeypatch.setattr("dtrain.core.engines.cudnn.engine.load_library", load)

    def body(host: Communicator) -> str:
        ranks.own = host.rank
        job = Job(host, Console(io.StringIO()), host.activity, device=0)
        return take_engine(job, None, "FLOAT32", Promises()).name

    with caplog.at_level(logging.WARNING):
        names = run_ranks(3, body, hosts=["a", "a", "b"])
    assert names == ["cupy" if rank in broken else "cudnn" for rank in range(3)]
    return caplog.messages


MISSING = "engine cudnn can't be used, so a slower one computes: engine cudnn needs cuDNN 9, got none"


def test_take_engine_says_what_all_ranks_lack_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert said_on(monkeypatch, caplog, broken=[0, 1, 2]) == [MISSING]


def test_take_engine_names_the_rank_that_lacks_something_and_that_engines_differ(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert said_on(monkeypatch, caplog, broken=[2]) == [
        f"rank 2 (b): {MISSING}",
        "ranks compute by different engines, cudnn on rank 0 (a), rank 1 (a); cupy on rank 2 (b): params stay equal,"
        " but the slowest sets the pace and results are those of no one engine; --engine takes the same everywhere",
    ]


def test_differing_engines_that_are_the_same_are_not_worth_a_line() -> None:
    assert differing_engines(topology_from_hosts(["a", "a"], 0), ["cudnn", "cudnn"]) == []


PROMISES = [
    ([], "", "FLOAT32 (products in TF32);"),
    (["--strict-float32"], "", "FLOAT32;"),
    ([], "strict_float32: true", "FLOAT32;"),
    (["--deterministic"], "strict_float32: true", "FLOAT32, deterministic;"),
    ([], "deterministic: true", "FLOAT32 (products in TF32), deterministic;"),
]


@pytest.mark.parametrize(("options", "fields", "text"), PROMISES)
def test_train_by_cudnn_says_what_its_products_are(
    run_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    fields: str,
    text: str,
) -> None:
    play_cudnn(monkeypatch)
    monkeypatch.setattr("dtrain.core.engines.cudnn.engine.ALLOWS_TF32", True)
    with (run_folder / "solver.prototxt").open("a") as solver:
        solver.write(f"dtrain_param {{ {fields} }}\n")
    assert main(["train", "--solver", "solver.prototxt", "--gpu", "0", *options]) == 0
    assert f"] Using cudnn: cuDNN 9.28.0, Played 0, {text} what it lacks" in capsys.readouterr().err
    assert main(["check", "solver.prototxt", "--gpu", "0"]) == 0
    is_strict, is_deterministic = "strict" in fields, "deterministic" in fields
    checked = (
        "FLOAT32" if is_strict else "FLOAT32 (products in TF32)"
    ) + ", deterministic" * is_deterministic
    assert f"Played 0, {checked}; what it lacks" in capsys.readouterr().out


def test_time_by_cudnn_is_as_strict_as_asked(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cudnn(monkeypatch)
    monkeypatch.setattr("dtrain.core.engines.cudnn.engine.ALLOWS_TF32", True)
    command = ["time", "--model", "net.prototxt", "--iterations", "1", "--gpu", "0"]
    assert main([*command, "--strict-float32", "--deterministic"]) == 0
    assert "Played 0, FLOAT32, deterministic; what it lacks" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["reference", "cupy"])
def test_train_by_engines_that_are_strict_anyway_takes_the_options(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    play_cupy(monkeypatch)
    command = ["train", "--solver", "solver.prototxt", "--engine", engine]
    assert main([*command, "--strict-float32", "--deterministic"]) == 0
