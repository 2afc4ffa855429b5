"""Net-level inputs become an Input layer."""

from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.graph.upgrade.inputs import drop_inputs, has_shapes
from dtrain.core.prototxt import Document, parse_text
from dtrain.proto import caffe_pb2
from tests.core.graph.upgrade.documents import RELU, message_of, net_of


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


def test_upgrade_net_of_input_dims_of_zero_is_an_empty_batch() -> None:
    document = upgrade_net(net_of('input: "x" input_dim: [0, 2, 3, 4]'))
    assert list(document.message.layer[0].input_param.shape[0].dim) == [0, 2, 3, 4]


def test_drop_inputs_of_a_net_without_shapes_leaves_the_layers() -> None:
    net = message_of(f'input: "x" input: "y" {RELU}')
    assert not has_shapes(net)
    assert has_shapes(message_of('input: "x" input_shape { dim: 2 }'))
    assert has_shapes(message_of('input: "x" input_dim: 2'))
    drop_inputs(net)
    assert net == message_of(RELU)


def test_upgrade_net_of_inputs_inside_a_solver_file_keeps_the_lines() -> None:
    text = f'net_param {{\n  input: "x" input_shape {{ dim: 2 }}\n  {RELU} }}'
    solver = parse_text(text, caffe_pb2.SolverParameter, "solver.prototxt")
    lines = {path[1:]: line for path, line in solver.lines.items() if path[:1] == ("net_param",)}
    document = upgrade_net(Document(solver.message.net_param, "solver.prototxt", lines))
    assert [layer.type for layer in document.message.layer] == ["Input", "ReLU"]
    assert document.line("layer", 1) == 3
