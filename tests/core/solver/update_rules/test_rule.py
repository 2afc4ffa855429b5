from __future__ import annotations

from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.proto import caffe_pb2


def test_update_rules_keep_the_solver_that_they_read_their_fields_from() -> None:
    solver = caffe_pb2.SolverParameter(momentum=0.5)
    for name in UPDATE_RULES:
        rule = UPDATE_RULES[name](solver)
        assert rule.solver is solver
        assert rule.num_histories >= 1
