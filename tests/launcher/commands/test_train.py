"""dtrain train on a small net: what it logs and writes, and how it starts and ends."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import load_weights
from dtrain.launcher.commands import train
from dtrain.launcher.commands.train import add_arguments, check_flags, run
from dtrain.launcher.main import main
from dtrain.proto import caffe_pb2
from tests.conftest import Mpirun
from tests.core.solver.small_runs import DROPOUT, SmallRuns, write_database
from tests.played.cupy import play_cupy


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--solver", "solver.prototxt", *arguments])


def messages(text: str) -> list[str]:
    """Return what the log says, without glog's prefix."""
    return [line.partition("] ")[2] for line in text.splitlines()]


def test_train_to_the_end_logs_caffes_lines(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse()) == 0
    logged = messages(capsys.readouterr().err)
    assert "Iteration 3, Testing net (#0)" in logged
    assert "Snapshotting solver state to binary proto file snapshots/tiny_iter_6.solverstate" in logged
    assert logged[-1] == "Optimization Done."
    assert [line.split()[1] for line in logged if "iter/s" in line] == ["0", "2", "4"]
    assert (run_folder / "snapshots/tiny_iter_6.caffemodel").is_file()


def test_train_from_a_snapshot_goes_on(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(parse())
    capsys.readouterr()
    assert run(parse("--snapshot", "snapshots/tiny_iter_4.solverstate")) == 0
    assert [line.split()[1] for line in messages(capsys.readouterr().err) if "iter/s" in line] == ["4"]


def test_train_resume_auto_without_snapshot_starts_with_the_weights(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(parse())
    (run_folder / "snapshots").rename(run_folder / "earlier")
    capsys.readouterr()
    assert run(parse("--resume", "auto", "--weights", "earlier/tiny_iter_2.caffemodel")) == 0
    logged = messages(capsys.readouterr().err)
    assert any(line.startswith("Copied the weights of") for line in logged)
    assert [line.split()[1] for line in logged if "iter/s" in line] == ["0", "2", "4"]


@pytest.mark.parametrize(
    ("flags", "iterations"),
    [
        ([], ["2", "4", "6"]),
        (["--weights", "earlier/tiny_iter_6.caffemodel"], ["6"]),
        (["--snapshot", "earlier/tiny_iter_4.solverstate"], ["4"]),
        (["--resume", "auto"], ["2", "4", "6"]),  # there is no snapshot to resume from
    ],
)
def test_train_starts_from_the_weights_of_the_solver_file_unless_told_otherwise(
    run_folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], iterations: list[str]
) -> None:
    run(parse())
    (run_folder / "snapshots").rename(run_folder / "earlier")
    names = [f"earlier/tiny_iter_{n}.caffemodel" for n in (2, 4, 6)]
    with (run_folder / "solver.prototxt").open("a") as solver:
        solver.write(f'weights: "{names[0]}, {names[1]}"\nweights: "{names[2]}"\n')
    capsys.readouterr()
    run(parse(*flags))
    found = [
        re.match(r"Copied the weights of .* from \S*_iter_(\d+)\.", line)
        for line in messages(capsys.readouterr().err)
    ]
    assert [match[1] for match in found if match] == iterations


def test_train_resume_auto_takes_the_newest(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(parse())
    for file in (run_folder / "snapshots").glob("tiny_iter_6*"):
        file.unlink()
    capsys.readouterr()
    run(parse("--resume", "auto"))
    assert [line.split()[1] for line in messages(capsys.readouterr().err) if "iter/s" in line] == ["4"]


def test_train_that_early_stopping_ends_is_done(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run_folder / "solver.prototxt").open("a") as solver:
        solver.write("dtrain_param { early_stopping_patience: 1 monitor { min_delta: 1000 } }\n")
    assert run(parse()) == 0
    logged = messages(capsys.readouterr().err)
    assert any(
        line.startswith("Ending at iteration 3: loss of test net #0 has not improved in 1 test")
        for line in logged
    )
    assert logged[-1] == "Optimization Done."


def test_train_without_a_gpu_says_that_the_cpu_computes_if_the_file_says_gpu(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cupy(monkeypatch, num_devices=0)
    run(parse())
    assert "GPU" not in capsys.readouterr().err
    with (run_folder / "solver.prototxt").open("a") as solver:
        solver.write("solver_mode: GPU\n")
    run(parse())
    assert (
        "solver.prototxt:11: solver_mode is GPU, but the CPU computes: CUDA must" in capsys.readouterr().err
    )


def test_train_with_a_gpu_asked_for_and_none_there_is_a_users_mistake(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cupy(monkeypatch, num_devices=0)
    assert main(["train", "--solver", "solver.prototxt", "--gpu", "0"]) == 2
    assert "--gpu 0: CUDA must find a GPU that it can use, got cudaErrorNoDevice" in capsys.readouterr().err


def test_train_with_a_gpu_trains_on_it_to_the_cpus_weights(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for flags in (["--engine", "reference"], ["--gpu", "1", "--engine", "cupy"]):
        cupy = play_cupy(monkeypatch, num_devices=2)
        assert run(parse(*flags)) == 0
        layers = load_weights("snapshots/tiny_iter_6.caffemodel")
        weights.append([np.array(blob) for layer in layers for blob in layer.blobs])
    assert cupy.cuda.runtime.getDevice() == 1
    assert "Using cupy: cupy played, GPU 1 (Played 1); ranks: 1" in capsys.readouterr().err
    assert [blob.shape for blob in weights[0]] == [(2, 3), (2,)]
    for cpu, gpu in zip(*weights, strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("bf16")
@pytest.mark.parametrize(
    ("fields", "flags", "is_bf16"),
    [
        ("", ["--precision", "bf16"], True),
        ("dtrain_param { precision: BF16 }", [], True),
        ("dtrain_param { precision: BF16 }", ["--precision", "float32"], False),
    ],
)
def test_train_in_bf16_says_so(
    run_folder: Path, capsys: pytest.CaptureFixture[str], fields: str, flags: list[str], is_bf16: bool
) -> None:
    with (run_folder / "solver.prototxt").open("a") as solver:
        solver.write(fields)
    assert run(parse(*flags)) == 0
    using = next(line for line in messages(capsys.readouterr().err) if line.startswith("Using "))
    assert (", bf16, " in using) is is_bf16


def test_train_in_bf16_on_an_engine_without_is_a_users_mistake(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--solver", "solver.prototxt", "--precision", "bf16", "--engine", "reference"]
    assert main(arguments) == 2
    sentence = "engine reference: precision must be FLOAT32, got BF16; BF16 needs engine cudnn or onednn"
    assert capsys.readouterr().err.splitlines()[-1] == sentence


@pytest.fixture
def runs(tmp_path: Path) -> SmallRuns:
    """Return the writer of solver and net files on a database of 100 records."""
    write_database(tmp_path / "lmdb")
    return SmallRuns(tmp_path, str(tmp_path / "lmdb"))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], None),
        (["--lr-scaling", "linear"], "1 (linear): an update takes the records of 1 ranks, base_lr is for those of 1"),
        (["--lr-scaling", "sqrt", "--global-batch", "32"], "2 (sqrt): an update takes 32 records, base_lr is for 8"),
        (["--lr-scaling", "none", "--global-batch", "32"], None),
    ],
)  # fmt: skip
def test_train_with_a_global_batch_or_lr_scaling_says_what_becomes_of_the_rate(
    runs: SmallRuns, capsys: pytest.CaptureFixture[str], flags: list[str], line: str | None
) -> None:
    path = runs.write("max_iter: 4 display: 1", batch_size=8)
    assert main([path, *flags]) == 0
    logged = messages(capsys.readouterr().err)
    assert [text for text in logged if text.startswith("Learning rate times")] == (
        [f"Learning rate times {line}"] if line else []
    )
    assert any(text.startswith("Epoch 1 begins at iteration 3") for text in logged) == ("32" in flags)


def test_train_that_keeps_blobs_writes_the_same_weights(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = runs.write("max_iter: 5 test_iter: 3 test_interval: 2 snapshot_after_train: true", middle=DROPOUT)
    shared: list[int] = []
    share = train.share_memory
    monkeypatch.setattr(
        train, "share_memory", lambda nets, again: shared.append(len(nets)) or share(nets, again)
    )
    weights = []
    for flags in ([], ["--keep-blobs"]):
        assert main([path, *flags]) == 0
        weights.append((runs.folder / "run_iter_5.caffemodel").read_bytes())
    assert weights[0] == weights[1]
    assert shared == [2]  # the net to train and one to test, the first time alone


@pytest.mark.parametrize(("field", "flags"), [("", ["--recompute"]), ("recompute: true", [])])
def test_train_that_recomputes_writes_the_same_weights(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch, field: str, flags: list[str]
) -> None:
    recomputes: list[bool] = []
    share = train.share_memory
    monkeypatch.setattr(
        train, "share_memory", lambda nets, again: recomputes.append(again) or share(nets, again)
    )
    weights = []
    for more, arguments in (("", []), (f"dtrain_param {{ {field} }}", flags)):
        path = runs.write(f"max_iter: 5 snapshot_after_train: true {more}", middle=DROPOUT)
        assert main([path, *arguments]) == 0
        weights.append((runs.folder / "run_iter_5.caffemodel").read_bytes())
    assert weights[0] == weights[1]
    assert recomputes == [False, True]


def test_train_with_snapshot_diff_writes_what_the_update_took_off_and_the_same_weights(
    runs: SmallRuns,
) -> None:
    models = []
    for with_diff in ("false", "true"):
        path = runs.write(f"max_iter: 2 snapshot: 1 snapshot_diff: {with_diff}")
        assert main([path]) == 0
        for iteration in (1, 2):
            content = (runs.folder / f"run_iter_{iteration}.caffemodel").read_bytes()
            net = caffe_pb2.NetParameter.FromString(content)
            models.append([blob for layer in net.layer for blob in layer.blobs])
    plain, plain_after, before, after = models
    assert [blob.data for blob in plain + plain_after] == [blob.data for blob in before + after]
    assert not any(blob.diff for blob in plain + plain_after)
    for old, new in zip(before, after, strict=True):
        assert np.any(new.diff)
        np.testing.assert_allclose(new.diff, np.subtract(old.data, new.data), rtol=0, atol=1e-7)


def test_train_with_the_file_s_global_batch_on_any_ranks_shows_the_same_losses(
    runs: SmallRuns, mpirun: Mpirun
) -> None:
    path = runs.write("max_iter: 6 display: 1", batch_size=24, shuffle=True)
    losses = []
    for num_ranks, flag in ((1, []), (3, ["--global-batch"]), (2, ["--global-batch", "24"])):
        result = mpirun(num_ranks, ["-m", "dtrain", path, *flag])
        assert result.returncode == 0, result.stderr
        losses.append([float(loss) for loss in re.findall(r"iters\), loss = (\S+)", result.stderr)])
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_train_with_a_global_batch_that_cannot_be_is_a_users_mistake(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solver.prototxt", "--global-batch", "x"]) == 2
    assert main(["solver.prototxt", "--global-batch", "0"]) == 2
    said = capsys.readouterr().err
    assert said.count("--global-batch: must be a whole number of at least 1, got") == 2
    assert main(["solver.prototxt", "--global-batch", "8"]) == 2
    assert "net.prototxt: --global-batch needs a layer in TRAIN that reads records" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--snapshot", "a", "--weights", "b"], "only one of --snapshot and --weights may be given"),
        (["--snapshot", "a", "--resume", "auto"], "only one of --snapshot and --resume may be given"),
        (["--keep-blobs", "--recompute"], "only one of --keep-blobs and --recompute may be given"),
    ],
)
def test_check_flags_that_cannot_be_raises(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_flags(parse(*arguments))


def test_train_of_an_unknown_engine_is_a_users_mistake(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solver.prototxt", "--engine", "referense"]) == 2
    assert 'unknown engine "referense"; did you mean "reference"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "after_training", "last_words"),
    [
        (signal.SIGTERM, "true", r"go on with --snapshot snapshots/tiny_iter_\d+\.solverstate$"),
        (signal.SIGUSR1, "false", r"no snapshot: snapshot_after_train is false$"),
    ],
)
def test_train_stopped_by_a_signal_exits_with_75(
    run_folder: Path, number: signal.Signals, after_training: str, last_words: str
) -> None:
    text = (run_folder / "solver.prototxt").read_text()
    text = text.replace("max_iter: 6", "max_iter: 100000000").replace("snapshot: 2", "snapshot: 0")
    (run_folder / "solver.prototxt").write_text(f"{text}snapshot_after_train: {after_training}\n")
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen(
        [sys.executable, "-m", "dtrain", "solver.prototxt"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        next(line for line in lines if "Iteration 2 " in line)
        process.send_signal(number)
        rest = list(lines)
    assert process.returncode == 75
    assert re.search(last_words, rest[-1].strip())
