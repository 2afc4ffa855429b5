from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.graph import layer_class_of
from dtrain.core.layers import LAYERS
from dtrain.core.prototxt import parse_text, write_text
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TEST, TRAIN, make_graph

LENET = """name: "lenet"
layer { name: "d" type: "DummyData" top: "data" include { phase: TRAIN } }
layer { name: "t" type: "DummyData" top: "data" include { phase: TEST } }
layer { name: "label" type: "DummyData" top: "label" }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "deep" type: "TanH" bottom: "ip" top: "deep" include { min_level: 1 } include { stage: "deploy" } }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" exclude { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


@pytest.mark.parametrize(
    ("phase", "level", "stages", "names"),
    [
        (TRAIN, 0, (), ["d", "label", "ip", "relu", "loss"]),
        (TRAIN, 1, ("",), ["d", "label", "ip", "relu", "deep", "loss"]),
        (TRAIN, 0, ("deploy",), ["d", "label", "ip", "relu", "deep"]),
        (TEST, 0, (), ["t", "label", "ip", "relu", "acc", "loss"]),
        (TEST, 0, ("deploy",), ["t", "label", "ip", "relu", "deep", "acc"]),
    ],
)
def test_build_graph_in_a_state_has_the_layers_that_are_in(
    phase: int, level: int, stages: tuple[str, ...], names: list[str]
) -> None:
    graph = make_graph(LENET, phase, level, stages)
    assert [node.name for node in graph.nodes if not node.inserted] == names
    assert {node.param.phase for node in graph.nodes if not node.inserted} == {phase}


def test_build_graph_inserts_splits_behind_what_works_in_place() -> None:
    names = [node.name for node in make_graph(LENET, TEST).nodes]
    splits = {"label": "label_label_0_split", "relu": "ip_relu_0_split"}
    assert names == ["t", "label", splits["label"], "ip", "relu", splits["relu"], "acc", "loss"]


def test_build_graph_keeps_the_phase_that_a_layer_names() -> None:
    text = 'layer { name: "d" type: "DummyData" top: "x" phase: TEST }'
    assert make_graph(text, TRAIN).nodes[0].param.phase == TEST


def test_to_param_of_a_graph_reads_back_as_the_same_net_without_further_splits() -> None:
    graph = make_graph(LENET, TEST)
    param = graph.to_param()
    assert param.name == "lenet"
    again = make_graph(write_text(param), TEST)
    for node, other in zip(graph.nodes, again.nodes, strict=True):
        assert (node.name, node.param.type) == (other.name, other.param.type)
        assert (node.param.bottom, node.param.top) == (other.param.bottom, other.param.top)


def test_layer_class_of_a_node_is_the_registered_one() -> None:
    assert layer_class_of(make_graph(LENET).nodes[2]) is LAYERS["InnerProduct"]


# Each row: the layers from line 3 on, and what is wrong with them. Lines 1 and 2 produce data and label.
HEAD = """layer { name: "data" type: "DummyData" top: "data" }
layer { name: "label" type: "DummyData" top: "label" }
"""
KNOWN = ", ".join(sorted(LAYERS))


@pytest.mark.parametrize(
    ("layers", "problems"),
    [
        (
            'layer { name: "ip" type: "InnerProduct" bottom: "dta" top: "ip" }',
            [
                'net.prototxt:3: layer "ip": bottom "dta" is produced by no earlier layer; '
                'did you mean "data"? blobs so far: data, label'
            ],
        ),
        (
            'layer { name: "ip" type: "InnerProduct" bottom: "zzz" top: "ip" }',
            [
                'net.prototxt:3: layer "ip": bottom "zzz" is produced by no earlier layer; blobs so far: data, label'
            ],
        ),
        (
            'layer { name: "x" type: "DummyData" top: "x" include { phase: TEST } }\n'
            'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" }',
            [
                'net.prototxt:4: layer "ip": bottom "x" is produced by no earlier layer; net.prototxt:3: layer "x" '
                "has it, but is not in for TRAIN, see its rules; blobs so far: data, label"
            ],
        ),
        (
            'layer { name: "ip" type: "InerProduct" bottom: "data" top: "ip" }\n'
            'layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }',
            [
                'net.prototxt:3: layer "ip": unknown layer type "InerProduct"; did you mean "InnerProduct"?; '
                f"known: {KNOWN}"
            ],
        ),
        (
            'layer { name: "a" type: "TanH" bottom: "data" top: "label" }',
            [
                'net.prototxt:3: layer "a": top "label" is already produced by layer "label"; give it another name '
                "(or name it as the bottom at the same place to work in place)"
            ],
        ),
        (
            'layer { name: "a" type: "Eltwise" bottom: "data" bottom: "label" top: "label" }',
            [
                'net.prototxt:3: layer "a": top "label" is already produced by layer "label"; give it another name '
                "(or name it as the bottom at the same place to work in place)"
            ],
        ),
        (
            'layer { name: "a" type: "TanH" bottom: "data" bottom: "label" top: "a" }',
            ['net.prototxt:3: layer "a": needs 1 bottoms, got 2: data, label'],
        ),
        (
            'layer { name: "a" type: "TanH" bottom: "data" }',
            ['net.prototxt:3: layer "a": needs 1 tops, got 0: none'],
        ),
        (
            'layer { name: "a" type: "Accuracy" bottom: "data" bottom: "label" top: "a" top: "b" top: "c" }',
            ['net.prototxt:3: layer "a": needs 1 to 2 tops, got 3: a, b, c'],
        ),
        (
            'layer { name: "a" type: "Eltwise" bottom: "data" top: "a" }',
            ['net.prototxt:3: layer "a": needs 2 or more bottoms, got 1: data'],
        ),
        (
            'layer { name: "a" type: "Convolution" bottom: "data" bottom: "label" top: "a" }',
            ['net.prototxt:3: layer "a": needs as many tops as bottoms, got 2 and 1'],
        ),
        (
            'layer { name: "a" type: "TanH" bottom: "data" top: "a"\n  propagate_down: true propagate_down: false }',
            ['net.prototxt:3: layer "a": propagate_down must be given once per bottom (1), got 2'],
        ),
        (
            'layer { name: "a" type: "TanH" bottom: "data" top: "a" loss_weight: 1 loss_weight: 1 }',
            ['net.prototxt:3: layer "a": loss_weight must be given once per top (1), got 2'],
        ),
        (
            'layer { name: "a" type: "TanH" bottom: "data" top: "a" include { } exclude { } }',
            [
                'net.prototxt:3: layer "a": a layer may have include rules or exclude rules, not both; '
                "remove one kind"
            ],
        ),
        # several mistakes in one go, each once and each with its line
        (
            'layer { name: "a" type: "TanH"\n  bottom: "dta" top: "a" }\n'
            'layer { name: "b" type: "Foo" bottom: "a" top: "b" }\n'
            'layer { name: "c" type: "Eltwise" bottom: "b" top: "label" }',
            [
                f'net.prototxt:5: layer "b": unknown layer type "Foo"; known: {KNOWN}',
                'net.prototxt:6: layer "c": needs 2 or more bottoms, got 1: b',
                'net.prototxt:3: layer "a": bottom "dta" is produced by no earlier layer; '
                'did you mean "data"? blobs so far: data, label',
                'net.prototxt:6: layer "c": top "label" is already produced by layer "label"; give it another name '
                "(or name it as the bottom at the same place to work in place)",
            ],
        ),
    ],
)
def test_build_graph_of_a_mistaken_net_names_every_mistake(layers: str, problems: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make_graph(HEAD + layers)
    assert list(caught.value.problems) == problems


def test_build_graph_of_a_misspelt_bottom_lists_the_last_blobs() -> None:
    tops = " ".join(f'top: "b{i}"' for i in range(15))
    text = (
        f'layer {{ name: "d" type: "DummyData" {tops} }}\n'
        'layer { name: "a" type: "TanH" bottom: "?" top: "a" }'
    )
    with pytest.raises(
        UserError, match="blobs so far: … b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14$"
    ):
        make_graph(text)


def test_build_graph_without_a_layer_that_is_in_is_refused() -> None:
    text = 'layer { name: "d" type: "DummyData" top: "x" include { phase: TEST } }'
    with pytest.raises(
        UserError, match=r"^net.prototxt: no layer is in for TRAIN, level 2; see its include rules$"
    ):
        make_graph(text, TRAIN, level=2)


@pytest.mark.parametrize("top", ["", 'top: "l"'])
def test_build_graph_of_a_weighted_loss_may_leave_its_top_out(top: str) -> None:
    text = (
        HEAD
        + f'layer {{ name: "l" type: "EuclideanLoss" bottom: "data" bottom: "label" {top} loss_weight: 2 }}'
    )
    assert make_graph(text).nodes[-1].param.loss_weight == [2]


def test_build_graph_leaves_the_document_as_it_was() -> None:
    document = parse_text(LENET, caffe_pb2.NetParameter)
    before = document.message.SerializeToString()
    make_graph(LENET)
    assert document.message.SerializeToString() == before


def test_build_graph_of_a_blob_changed_in_place_after_another_has_read_it_is_refused() -> None:
    net = """
    layer { name: "x" type: "Input" top: "x" }
    layer { name: "before" type: "TanH" bottom: "x" top: "y" }
    layer { name: "over" type: "ReLU" bottom: "x" top: "x" }
    layer { name: "after" type: "TanH" bottom: "x" top: "z" }
    """
    with pytest.raises(UserError) as caught:
        make_graph(net)
    assert caught.value.problems == (
        'net.prototxt:4: layer "over": top "x" can\'t be in place, since layer "before" reads the blob as it was '
        "before; give it another name",
    )


def test_build_graph_of_a_blob_changed_in_place_that_has_a_loss_weight_is_refused() -> None:
    net = """
    layer { name: "x" type: "Input" top: "x" loss_weight: 2 }
    layer { name: "over" type: "ReLU" bottom: "x" top: "x" loss_weight: 1 }
    layer { name: "after" type: "TanH" bottom: "x" top: "z" }
    """
    with pytest.raises(UserError) as caught:
        make_graph(net)
    assert caught.value.problems == (
        'net.prototxt:3: layer "over": top "x" can\'t be in place, since layer "x" takes a loss from the blob '
        "as it was before; give it another name",
    )


def test_graph_warns_of_a_message_that_the_type_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    make_graph(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } pooling_param { stride: 2 } }'
    )
    assert caplog.messages == [
        'net.prototxt:1: layer "x": pooling_param has no effect, Input does not read it'
    ]


def test_graph_refuses_an_extension_that_the_type_does_not_know() -> None:
    with pytest.raises(UserError) as caught:
        make_graph(
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } '
            "dtrain_param { shuffle: true } }"
        )
    assert str(caught.value) == (
        'net.prototxt:1: layer "x": dtrain_param.shuffle is nothing that Input knows; known: none'
    )
