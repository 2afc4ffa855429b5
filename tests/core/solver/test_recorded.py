"""Ten iterations of BVLC Caffe (CPU, 9b89154), in recorded/<case>/, replayed.

trace.npz holds: X, Y (fed at each iteration), loss, p0_<layer>_<i> (params before) and p<k>_<layer>_<i> (after
iteration k). Beside it lie the solver, the net, and the snapshot that Caffe wrote after iteration 5.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.pycaffe import Net, SGDSolver, get_solver

RECORDED = sorted((Path(__file__).parent / "recorded").iterdir())
HALF = 5
# A bias below BatchNorm has a gradient of 0 but for rounding. Rules that divide by its size make steps of the
# noise, which are another BLAS's own: neither that bias nor the running mean above it can be compared.
NOISE = dict.fromkeys(("adagrad", "adam", "adam_hdf5"), {("conv", 1), ("bn", 0)})
Trace = dict[str, np.ndarray]


@pytest.fixture(params=RECORDED, ids=[path.name for path in RECORDED])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of one case, which is also the working directory: the files name each other."""
    copy = tmp_path / request.param.name
    shutil.copytree(request.param, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def trace(folder: Path) -> Trace:
    with np.load(folder / "trace.npz", allow_pickle=False) as file:
        return dict(file)


def feed_and_step(solver: SGDSolver, trace: Trace, iteration: int) -> None:
    solver.net.blobs["data"].data[...] = trace["X"][iteration]
    solver.net.blobs["label"].data[...] = trace["Y"][iteration]
    solver.step(1)


def assert_params(
    net: Net, trace: Trace, iteration: int, rtol: float, left_out: Collection[tuple[str, int]] = ()
) -> None:
    for layer, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            if (layer, i) in left_out:
                continue
            expected = trace[f"p{iteration}_{layer}_{i}"]
            scale = float(np.abs(expected).max())
            np.testing.assert_allclose(blob.data, expected, rtol=0, atol=rtol * (1e-4 + scale), err_msg=layer)


def test_solver_takes_the_way_that_caffe_took(folder: Path, trace: Trace) -> None:
    solver = get_solver("solver.prototxt")
    for layer, blobs in solver.net.params.items():
        for i, blob in enumerate(blobs):
            blob.data[...] = trace[f"p0_{layer}_{i}"]
    for iteration in range(len(trace["X"])):
        feed_and_step(solver, trace, iteration)
        assert float(solver.net.blobs["loss"].data) == pytest.approx(trace["loss"][iteration], rel=1e-3)
        assert_params(solver.net, trace, iteration + 1, 1e-5, NOISE.get(folder.name, ()))


def test_solver_goes_on_from_caffe_s_own_snapshot(folder: Path, trace: Trace) -> None:
    solver = get_solver("solver.prototxt")
    (state,) = folder.glob(f"snap_iter_{HALF}.solverstate*")
    solver.restore(state)
    assert solver.iter == HALF
    assert_params(solver.net, trace, HALF, rtol=1e-6)
    for iteration in range(HALF, len(trace["X"])):
        feed_and_step(solver, trace, iteration)
        assert_params(solver.net, trace, iteration + 1, 1e-5, NOISE.get(folder.name, ()))


def test_recorded_cases_are_there() -> None:
    adaptive = ["adadelta", "adagrad", "adam", "adam_hdf5"]
    sgd = ["sgd_clip", "sgd_exp", "sgd_fixed", "sgd_inv", "sgd_legacy_enum", "sgd_poly"]
    assert [path.name for path in RECORDED] == adaptive + sgd
