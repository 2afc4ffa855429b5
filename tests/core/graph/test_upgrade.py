from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade import upgrade_net, upgrade_solver
from dtrain.core.prototxt import Document, parse_text
from dtrain.proto import caffe_pb2

RELU = 'layer { name: "relu" type: "ReLU"\n  bottom: "x" top: "y" }'


def net_of(text: str) -> Document[caffe_pb2.NetParameter]:
    return parse_text(text, caffe_pb2.NetParameter, "net.prototxt")


def solver_of(text: str) -> Document[caffe_pb2.SolverParameter]:
    return parse_text(text, caffe_pb2.SolverParameter, "solver.prototxt")


@pytest.mark.parametrize(
    ("fields", "tops", "shapes"),
    [
        ('input: "x" input_shape { dim: 2 dim: 3 }', ["x"], [[2, 3]]),
        ('input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4', ["x"], [[1, 2, 3, 4]]),
        (
            'input: "x" input: "z" input_shape { dim: 2 } input_shape { dim: 5 dim: 1 }',
            ["x", "z"],
            [[2], [5, 1]],
        ),
        (
            'input: "x" input: "z" input_dim: [1, 2, 3, 4, 5, 6, 7, 8]',
            ["x", "z"],
            [[1, 2, 3, 4], [5, 6, 7, 8]],
        ),
    ],
)
def test_upgrade_net_of_input_fields_puts_an_input_layer_in_front(
    fields: str, tops: list[str], shapes: list[list[int]]
) -> None:
    document = upgrade_net(net_of(f'name: "n"\n{fields}\n{RELU}'))
    net = document.message
    assert [(layer.name, layer.type) for layer in net.layer] == [("input", "Input"), ("relu", "ReLU")]
    assert list(net.layer[0].top) == tops
    assert [list(shape.dim) for shape in net.layer[0].input_param.shape] == shapes
    assert (len(net.input), len(net.input_shape), len(net.input_dim)) == (0, 0, 0)
    places = [document.where("layer", 0), document.where("layer", 1), document.where("layer", 1, "top")]
    assert places == ["net.prototxt:2", "net.prototxt:3", "net.prototxt:4"]


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        ('input: "x"', "1 inputs, 0 input_shape and 0 input_dim"),
        ('input: "x" input_dim: 1 input_dim: 3', "1 inputs, 0 input_shape and 2 input_dim"),
        ('input: "x" input: "z" input_shape { dim: 2 }', "2 inputs, 1 input_shape and 0 input_dim"),
        ('input: "x" input_dim: [1, 2, 3, 4, 5, 6, 7, 8]', "1 inputs, 0 input_shape and 8 input_dim"),
    ],
)
def test_upgrade_net_of_inputs_without_their_shapes_is_refused(fields: str, got: str) -> None:
    with pytest.raises(UserError) as caught:
        upgrade_net(net_of(f'name: "n"\n{fields}\n{RELU}'))
    assert str(caught.value) == (
        "net.prototxt:2: input must come with one input_shape, or four input_dim, each: got " + got
    )


@pytest.mark.parametrize(
    ("type", "num_specs", "expected"),
    [
        ("BatchNorm", 3, [(0, 0)] * 3),
        ("BatchNorm", 2, [(2, 1)] * 2),
        ("InnerProduct", 3, [(2, 1)] * 3),
    ],
)
def test_upgrade_net_of_batch_norm_with_three_specs_stops_their_learning(
    type: str, num_specs: int, expected: list[tuple[float, float]]
) -> None:
    specs = 'param { name: "shared" lr_mult: 2 decay_mult: 1 }' * num_specs
    net = upgrade_net(net_of(f'layer {{ name: "bn" type: "{type}" bottom: "x" top: "y" {specs} }}')).message
    assert [(spec.lr_mult, spec.decay_mult) for spec in net.layer[0].param] == expected
    assert {spec.name for spec in net.layer[0].param} == {"shared"}


def test_upgrade_net_of_today_changes_nothing() -> None:
    document = net_of(RELU)
    before = document.message.SerializeToString()
    assert upgrade_net(document) is document
    assert document.message.SerializeToString() == before


def test_upgrade_net_of_the_form_of_2014_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match=r"^net.prototxt:2: `layers` is the form of 2014"):
        upgrade_net(net_of('name: "n"\nlayers { name: "relu" type: RELU bottom: "x" top: "x" }'))


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
