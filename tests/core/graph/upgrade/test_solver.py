"""The old enum of solver types."""

from __future__ import annotations

import logging

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade import upgrade_solver
from dtrain.core.graph.upgrade.solver import TYPES
from dtrain.proto import caffe_pb2
from tests.core.graph.upgrade.documents import solver_of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
    ],
)
def test_upgrade_solver_of_the_old_enum_names_the_type(old: str, new: str) -> None:
    solver = upgrade_solver(solver_of(f"solver_type: {old}")).message
    assert solver.type == new
    assert not solver.HasField("solver_type")


def test_upgrade_solver_with_both_kinds_of_type_is_refused() -> None:
    with pytest.raises(UserError, match=r"^solver.prototxt:2: give type or solver_type, not both$"):
        upgrade_solver(solver_of('type: "SGD"\nsolver_type: SGD'))


def test_upgrade_solver_of_today_keeps_its_type() -> None:
    assert upgrade_solver(solver_of('type: "Adam"')).message.type == "Adam"
    assert upgrade_solver(solver_of("base_lr: 1")).message.type == "SGD"


def test_upgrade_solver_knows_every_old_type() -> None:
    assert TYPES.keys() == set(caffe_pb2.SolverParameter.SolverType.keys())


def test_upgrade_solver_says_what_it_reads(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        upgrade_solver(solver_of("solver_type: RMSPROP"))
    assert caplog.messages == ['solver.prototxt: solver_type is read as type: "RMSProp"']
