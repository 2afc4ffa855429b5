from __future__ import annotations

import pytest

from dtrain.core.pycaffe.solver_param import SolverParam
from dtrain.proto import caffe_pb2


def test_solver_param_shows_all_fields_with_their_defaults() -> None:
    param = SolverParam(caffe_pb2.SolverParameter(max_iter=7))
    assert (param.max_iter, param.display, param.layer_wise_reduce, param.iter_size) == (7, 0, True, 1)
    assert {"max_iter", "display", "layer_wise_reduce", "base_lr"} <= set(dir(param))
    assert "max_iter: 7" in repr(param)
    with pytest.raises(AttributeError, match="no_such"):
        _ = param.no_such


def test_solver_param_base_lr_can_be_set_and_nothing_else() -> None:
    message = caffe_pb2.SolverParameter(base_lr=0.5, display=3)
    param = SolverParam(message)
    param.base_lr = 0.25
    assert message.base_lr == param.base_lr == 0.25
    with pytest.raises(AttributeError, match=r"^solver.param.display can't be set, .* only base_lr can$"):
        param.display = 4
    assert message.display == 3
