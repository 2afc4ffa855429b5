"""The upgrade of a solver file: solver_type, an enum, becomes type, a string.

Follows caffe's upgrade_proto.cpp (UpgradeSolverAsNeeded).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dtrain.core.errors import UserError
from dtrain.core.prototxt import Document
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

SolverDocument = Document[caffe_pb2.SolverParameter]

TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
"""The old enum's names and today's types."""


def upgrade_solver(document: SolverDocument, report: Callable[[str], None] = log.info) -> SolverDocument:
    """Return the SolverParameter in `document` with `type` instead of the old enum `solver_type`.

    report: gets a line if the file has the old enum. Raises UserError if it has both.
    """
    solver = document.message
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise UserError(f"{document.where('solver_type')}: give type or solver_type, not both")
        solver.type = TYPES[caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)]
        solver.ClearField("solver_type")
        report(f'{document.path}: solver_type is read as type: "{solver.type}"')
    return document
