"""The command line as a whole: its frozen table, its exit codes, and what several ranks print."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dtrain.core.errors import UserError
from dtrain.data.errors import DataError
from dtrain.dist.errors import AgreedFailure, ClusterError, LaunchError
from dtrain.launcher import main as main_module
from dtrain.launcher.arguments import make_parser
from dtrain.launcher.main import COMMANDS, choose_command, load_command, main

ROOT = Path(__file__).resolve().parents[2]

# Users' scripts depend on these: a change here is a change for them.
COMMAND_LINE = """\
train (collective)
  --solver required
  --snapshot
  --weights, repeatable
  --resume of auto
  --sigint_effect = stop of stop snapshot none
  --sighup_effect = snapshot of stop snapshot none
  --timeout
  --global-batch
  --lr-scaling of none linear sqrt
  --no-fuse = False
  --no-graph = False
  --keep-blobs = False
  --recompute = False
  --level
  --stage
  --engine
  --precision of float32 bf16 float16
  --strict-float32 = False
  --deterministic = False
  --gpu
  --communicator
  --synthetic
test (collective)
  --model required
  --weights, repeatable required
  --iterations = 50
  --level
  --stage
  --engine
  --precision of float32 bf16 float16
  --strict-float32 = False
  --deterministic = False
  --gpu
  --communicator
  --no-fuse = False
  --synthetic
time
  --model required
  --phase = TRAIN of TRAIN TEST
  --iterations = 50
  --level
  --stage
  --engine
  --precision of float32 bf16 float16
  --strict-float32 = False
  --deterministic = False
  --gpu
  --no-fuse = False
  --recompute = False
  --synthetic
summary
  FILE required
  --phase = TRAIN of TRAIN TEST
  --level
  --stage
  --engine
  --precision of float32 bf16 float16
  --recompute = False
  --synthetic
check (collective)
  FILE required
  --engine
  --gpu
  --recompute = False
  --level
  --stage
  --communicator
  --synthetic
  --simulate
  --link
  --local-link
  --algorithm
  --compute
  --flops
  --efficiency
  --cores
  --slowdown
  --no-overlap
  --json
doctor (collective)
  --bench = False
  --ranks = 2
  --largest = 256
device-query
  --gpu = all
convert-mnist
  DIR required
  OUT required
upgrade-net
  INPUT required
  OUTPUT required
  --text
  --binary
  --strip
upgrade-solver
  INPUT required
  OUTPUT required
  --strip
demo
  --num-ranks = 2
"""


def describe_option(action: argparse.Action) -> str:
    parts = [action.option_strings[0] if action.option_strings else str(action.metavar)]
    if isinstance(action, argparse._AppendAction):
        parts[0] += ", repeatable"
    if action.required:
        parts.append("required")
    if action.default not in (None, "", []):
        parts.append(f"= {action.default}")
    if action.choices:
        parts.append(f"of {' '.join(action.choices)}")
    return f"  {' '.join(parts)}"


@pytest.fixture(autouse=True)
def keep_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep main from setting the number of threads of this very process."""
    monkeypatch.setattr(main_module, "set_num_threads", lambda environment: None)


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], int]:
    """Return a function that runs main with a command that does `action`."""

    def run_main(action: Callable[[], int]) -> int:
        module = SimpleNamespace(add_arguments=lambda parser: None, run=lambda args: action())
        monkeypatch.setattr(main_module, "load_command", lambda command: module)
        return main(["doctor"])

    return run_main


def raise_error(error: BaseException) -> int:
    raise error


def test_command_line_is_frozen() -> None:
    lines = []
    for name, command in COMMANDS.items():
        parser = make_parser(name, command.help, load_command(command).add_arguments)
        lines.append(name + (" (collective)" if command.collective else ""))
        lines += [describe_option(action) for action in parser._actions if action.dest != "help"]
    assert "\n".join(lines) + "\n" == COMMAND_LINE


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("a.prototxt:1: one", "a.prototxt:2: two"), 2, "a.prototxt:1: one\na.prototxt:2: two\n"),
        (DataError("lmdb/x: empty"), 2, "lmdb/x: empty\n"),
        (LaunchError("mpirun belongs to another MPI"), 2, "mpirun belongs to another MPI\n"),
        (ClusterError("rank 3 was lost"), 3, "rank 3 was lost\n"),
        (AgreedFailure("said by rank 0 already", exit_code=2), 2, ""),
        (KeyboardInterrupt(), 130, "dtrain: interrupted\n"),
    ],
)
def test_main_with_an_expected_error_prints_sentences_and_returns_its_code(
    run_with: Callable[[Callable[[], int]], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    assert run_with(lambda: raise_error(error)) == code
    assert capsys.readouterr().err == text


def test_main_with_a_bug_lets_it_pass(run_with: Callable[[Callable[[], int]], int]) -> None:
    with pytest.raises(ZeroDivisionError):
        run_with(lambda: 1 // 0)


def test_main_returns_the_commands_code(run_with: Callable[[Callable[[], int]], int]) -> None:
    assert run_with(lambda: 75) == 75


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--solver", "s"], ("train", ["--solver", "s"])),
        (["device_query"], ("device-query", [])),
        (["x/solver.prototxt", "--gpu", "0"], ("train", ["--solver", "x/solver.prototxt", "--gpu", "0"])),
        ([__file__], ("train", ["--solver", __file__])),
    ],
)
def test_choose_command_from_the_first_word(arguments: list[str], expected: tuple[str, list[str]]) -> None:
    assert choose_command(arguments) == expected


def test_main_unknown_command_lists_the_known_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == (
        f'dtrain: unknown command "trian"; did you mean "train"?; known: {", ".join(COMMANDS)}, '
        "or the path of a solver file\n"
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_main_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert [name for name in COMMANDS if f"  {name} " not in printed] == []


def test_main_version_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "dtrain 0.1.0\n"


def test_main_of_another_rank_leaves_single_commands_to_rank_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert main(["device-query"]) == 0
    assert capsys.readouterr().out == ""


def test_main_import_comes_before_numpy() -> None:
    code = "import dtrain.launcher.main, sys; print('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "False"


def test_main_with_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m dtrain --help | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--solvr", "x"], "unknown option --solvr"),
        (["absent.prototxt"], "absent.prototxt: no such file"),
    ],
)
def test_main_on_two_ranks_prints_a_mistake_once(
    mpirun: Callable[..., subprocess.CompletedProcess[str]], arguments: list[str], line: str
) -> None:
    done = mpirun(2, ["-m", "dtrain", *arguments])
    assert done.returncode == 2
    assert done.stderr.count(line) == 1
    assert "Traceback" not in done.stderr


FAILING_RUN = """\
import os, sys
from dtrain.launcher.main import main
from dtrain.core.solver.solver import Solver
apply_update = Solver.apply_update
def fail_on_rank_1(solver):
    if solver.communicator.rank == 1 and solver.iter == 3:
        raise ZeroDivisionError("planted")
    apply_update(solver)
Solver.apply_update = fail_on_rank_1
sys.exit(main(["solver.prototxt"]))
"""


def test_main_with_a_bug_on_one_rank_ends_all_with_one_line(
    mpirun: Callable[..., subprocess.CompletedProcess[str]], run_folder: Path
) -> None:
    done = mpirun(2, ["-c", FAILING_RUN], cwd=run_folder)
    assert done.returncode == 3
    assert done.stderr.count("rank 1 of 2 (") == 1
    assert "failed at iteration 3 while" in done.stderr
    assert "ZeroDivisionError: planted" in done.stderr


BUG_BEFORE_THE_JOB = """\
import sys
from types import SimpleNamespace
from dtrain.launcher import main
module = SimpleNamespace(add_arguments=lambda parser: None, run=lambda args: 1 / 0)
main.load_command = lambda command: module
sys.argv[1:] = ["train"]
sys.exit(main.main())
"""


def test_main_with_a_bug_of_all_ranks_before_they_meet_says_it_once(
    mpirun: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = mpirun(2, ["-c", BUG_BEFORE_THE_JOB])
    assert done.returncode == 3
    assert done.stderr.count("Traceback") == 1
    lines = re.findall(r"^rank [01] of 2 \(.*\) failed before the .*$", done.stderr, re.MULTILINE)
    assert len(lines) == 1
    assert "failed before the first iteration while starting: ZeroDivisionError: division by zero" in lines[0]


def test_main_help_under_mpirun_ends_in_order(
    mpirun: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = mpirun(2, ["-m", "dtrain", "train", "--help"])
    assert done.returncode == 0
    assert done.stdout.count("usage:") == 1
    assert "rank " not in done.stderr


EXIT_BEFORE_THE_JOB = """\
import os, sys
from types import SimpleNamespace
from dtrain.launcher import main
def run(args):
    from dtrain.launcher.job import open_job
    if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        ACTION
    with open_job(None) as job:
        job.communicator.barrier()
    return 0
main.load_command = lambda command: SimpleNamespace(add_arguments=lambda parser: None, run=run)
sys.argv[1:] = ["train"]
sys.exit(main.main())
"""


@pytest.mark.parametrize(
    ("action", "code", "line"),
    [
        ("raise main.UserError('a.prototxt: no such file')", 2, "a.prototxt: no such file"),
        ("sys.exit(0)", 3, ") ended with exit code 0 before the first iteration while starting; "),
    ],
    ids=["mistake", "exit"],
)
def test_main_of_a_rank_that_never_reaches_mpi_leaves_nobody_waiting_there(
    mpirun: Callable[..., subprocess.CompletedProcess[str]], action: str, code: int, line: str
) -> None:
    done = mpirun(3, ["-c", EXIT_BEFORE_THE_JOB.replace("ACTION", action)])
    assert done.returncode == code
    assert done.stderr.count(line) == 1, done.stderr
