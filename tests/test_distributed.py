"""Whole jobs under a real mpirun, through the command line.

The bodies that tests/core/solver runs on threads are run here on MPI as well; by hand it is
`mpirun -n 2 python -m pytest tests/core/solver`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.snapshots import SnapshotStore, read_caffemodel, read_solverstate
from tests.conftest import Mpirun
from tests.core.solver.small_runs import DROPOUT, NUM_RECORDS, RANDOM_DATA, SmallRuns, write_database

GLOBAL_BATCH_SIZE = 64


@pytest.fixture
def runs(tmp_path: Path) -> SmallRuns:
    """Return the writer of the test's solver and net files."""
    write_database(tmp_path / "lmdb")
    return SmallRuns(tmp_path, str(tmp_path / "lmdb"))


def train(mpirun: Mpirun, num_ranks: int, *args: str) -> str:
    """Run `dtrain` with `args`, which must succeed, and return its log."""
    result = mpirun(num_ranks, ["-m", "dtrain", *args])
    assert result.returncode == 0, result.stderr
    return result.stderr


def losses_of(log: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"Iteration \d+ \(.*\), loss = (\S+)", log)]


def params_of(runs: SmallRuns, iteration: int, name: str) -> list[np.ndarray]:
    layers = read_caffemodel(runs.state(iteration, name).with_suffix(".caffemodel"))
    return [np.array(blob) for layer in layers for blob in layer.blobs]


def test_train_on_1_2_and_4_ranks_takes_the_same_way(runs: SmallRuns, mpirun: Mpirun) -> None:
    losses, params = [], []
    for num_ranks in (1, 2, 4):
        path = runs.write(
            "max_iter: 20 display: 1 snapshot_after_train: true test_iter: 34 test_interval: 20",
            name=f"on{num_ranks}",
            batch_size=GLOBAL_BATCH_SIZE // num_ranks,
            shuffle=True,
            transform=RANDOM_DATA,
        )
        losses.append(losses_of(train(mpirun, num_ranks, path)))
        params.append(params_of(runs, 20, f"on{num_ranks}"))
    assert len(losses[0]) == 20
    for i in (1, 2):
        np.testing.assert_allclose(losses[i], losses[0], rtol=1e-4)
        for mine, theirs in zip(params[i], params[0], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_train_on_2_ranks_goes_on_from_its_snapshot_bit_for_bit(runs: SmallRuns, mpirun: Mpirun) -> None:
    options = {"middle": DROPOUT, "shuffle": True, "transform": RANDOM_DATA}
    path = runs.write("max_iter: 12 snapshot: 6 display: 1 average_loss: 4", **options)  # type: ignore[arg-type]
    undisturbed = losses_of(train(mpirun, 2, path))
    params, history = params_of(runs, 12, "run"), read_solverstate(runs.state(12)).history
    for flags in (["--snapshot", str(runs.state(6))], ["--resume", "auto"]):
        for file in runs.folder.glob("run_iter_12.*"):
            file.unlink()
        log = train(mpirun, 2, path, *flags)
        assert losses_of(log) == undisturbed[6:]
        for mine, theirs in zip(params_of(runs, 12, "run"), params, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        for mine, theirs in zip(read_solverstate(runs.state(12)).history, history, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_train_with_a_corrupt_record_on_one_rank_ends_the_job_with_one_line(
    runs: SmallRuns, mpirun: Mpirun
) -> None:
    corrupt = runs.folder / "corrupt"
    write_database(corrupt, corrupt=NUM_RECORDS - 1)  # an odd place: rank 1 reads it, in iteration 6
    path = SmallRuns(runs.folder, str(corrupt)).write("max_iter: 20 snapshot: 2", batch_size=8)
    result = mpirun(2, ["-m", "dtrain", path])
    assert result.returncode == 3, result.stderr
    said = [line for line in result.stderr.splitlines() if 'record "' in line]
    assert len(said) == 1, result.stderr
    place = rf'rank 1 of 2 .* at iteration 6 .*: layer "data": {corrupt}: record "{NUM_RECORDS - 1:08d}": '
    assert re.search(place, said[0]), said[0]
    assert "Traceback" not in result.stderr
    newest = SnapshotStore(runs.folder / "run").newest()
    assert newest is not None  # what was written before is whole
    assert newest.state_path in (runs.state(4), runs.state(6))


def test_train_of_mistaken_files_says_each_mistake_once_for_the_job(runs: SmallRuns, mpirun: Mpirun) -> None:
    tail = 'layer { name: "a" type: "TanH" bottom: "hh" top: "a" }'
    path = runs.write('lr_policy: "stepp"', tail=tail)
    result = mpirun(2, ["-m", "dtrain", path])
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.count('unknown lr_policy "stepp"; did you mean "step"?') == 1
    assert result.stderr.count('layer "a": bottom "hh" is produced by no earlier layer') == 1


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_solver_tests_pass_on_mpi(mpirun: Mpirun, num_ranks: int, tmp_path: Path) -> None:
    args = ["-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "tests/core/solver"]
    result: subprocess.CompletedProcess[str] = mpirun(
        num_ranks, args, timeout_s=240, env={"TMPDIR": str(tmp_path)}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(re.findall(r"^\d+ passed, \d+ deselected", result.stdout, re.MULTILINE)) == num_ranks
