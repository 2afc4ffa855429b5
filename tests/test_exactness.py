"""Runs that are stopped and taken up again by whole jobs under a real mpirun, on as many ranks or on others.

What is compared is what lies on the disk in the end. tests/core/solver/test_exactness.py has the whole table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.core.snapshots import load_snapshot, read_caffemodel, read_solverstate
from tests.conftest import Mpirun
from tests.core.solver.numbered_records import NumberedRuns, write_records

SOLVER = (
    'type: "Adam" base_lr: 0.001 max_iter: 8 snapshot: 4 iter_size: 2 average_loss: 5 clip_gradients: 0.5'
)
LSTM = """
layer { name: "ones" type: "DummyData" top: "cont"
  dummy_data_param { shape { dim: 2 dim: 2 } data_filler { type: "constant" value: 1 } } }
layer { name: "steps" type: "Reshape" bottom: "h" top: "steps"
  reshape_param { shape { dim: 2 dim: 2 dim: -1 } } }
layer { name: "lstm" type: "LSTM" bottom: "steps" bottom: "cont" top: "lstm"
  recurrent_param { num_output: 6 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "rows" type: "Reshape" bottom: "lstm" top: "rows" reshape_param { shape { dim: 4 dim: 6 } } }"""


@pytest.fixture
def numbered(tmp_path: Path) -> NumberedRuns:
    """Return the writer of the test's solver and net files."""
    write_records(tmp_path)
    return NumberedRuns(tmp_path, tmp_path)


def train(mpirun: Mpirun, num_ranks: int, *args: str) -> str:
    """Run `dtrain` with `args`, which must succeed, and return its log."""
    result = mpirun(num_ranks, ["-m", "dtrain", *args], timeout_s=120)
    assert result.returncode == 0, result.stderr
    return result.stderr


def arrays_of(numbered: NumberedRuns, name: str = "run") -> list[np.ndarray]:
    """Return the params and the history of a run's last snapshot."""
    layers = read_caffemodel(numbered.state(8, name).replace(".solverstate", ".caffemodel"))
    params = [np.array(blob) for layer in layers for blob in layer.blobs]
    return [*params, *(np.array(array) for array in read_solverstate(numbered.state(8, name)).history)]


def test_train_with_an_lstm_on_2_ranks_goes_on_bit_for_bit(numbered: NumberedRuns, mpirun: Mpirun) -> None:
    path = numbered.write("image list", SOLVER, middle=LSTM, last="rows")
    train(mpirun, 2, path)
    expected, carried = arrays_of(numbered), load_snapshot(numbered.state(8)).read_carried()
    assert [[name for name, _ in states] for states in carried] == [["lstm"]] * 2
    for file in numbered.folder.glob("run_iter_8.*"):
        file.unlink()
    assert "anew" not in train(mpirun, 2, path, "--snapshot", numbered.state(4))
    for mine, theirs in zip(arrays_of(numbered), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert load_snapshot(numbered.state(8)).read_carried() == carried


def test_train_of_4_ranks_goes_on_the_same_way_with_2_and_1(numbered: NumberedRuns, mpirun: Mpirun) -> None:
    train(mpirun, 4, numbered.write("HDF5", SOLVER, batch_size=2))
    expected = arrays_of(numbered)
    manifest = load_snapshot(numbered.state(8)).manifest
    assert manifest is not None
    for num_ranks in (2, 1):
        name = f"on{num_ranks}"
        path = numbered.write("HDF5", SOLVER, name=name, batch_size=8 // num_ranks)
        train(mpirun, num_ranks, path, "--snapshot", numbered.state(4))
        for mine, theirs in zip(arrays_of(numbered, name), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
        resumed = load_snapshot(numbered.state(8, name)).manifest
        assert resumed is not None
        assert (resumed.positions, resumed.epoch) == (manifest.positions, manifest.epoch)
        np.testing.assert_allclose(resumed.losses, manifest.losses, rtol=1e-5)
