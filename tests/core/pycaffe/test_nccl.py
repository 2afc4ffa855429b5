from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.solver.solver import Solver


def test_new_uid_is_another_each_time_and_as_long_as_nccls() -> None:
    first, second = caffe.NCCL.new_uid(), caffe.NCCL.new_uid()
    assert len(first) == len(second) == 128
    assert first != second


def test_nccl_bcast_broadcasts_the_solvers_params(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    asked: list[Solver] = []
    monkeypatch.setattr(Solver, "broadcast_params", lambda self: asked.append(self))
    caffe.NCCL(solver, caffe.NCCL.new_uid()).bcast()
    assert asked == [solver.core]


def test_nccl_given_as_a_callback_leaves_training_as_it_is(folder: Path) -> None:
    plain, with_nccl = caffe.SGDSolver("solver.prototxt"), caffe.SGDSolver("solver.prototxt")
    nccl = caffe.NCCL(with_nccl, caffe.NCCL.new_uid())
    with_nccl.add_callback(nccl)
    with_nccl.net.after_backward(nccl)
    for solver in (plain, with_nccl):
        solver.net.blobs["x"].data[...] = 1
        solver.step(2)
    assert with_nccl.net.params["ip"][0].data.tolist() == plain.net.params["ip"][0].data.tolist()
