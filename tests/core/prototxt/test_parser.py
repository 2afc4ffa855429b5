from __future__ import annotations

import re

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.core.errors import UserError
from dtrain.core.prototxt import parse_text
from dtrain.proto import caffe_pb2

NET, SOLVER = caffe_pb2.NetParameter, caffe_pb2.SolverParameter

VALID_FORMS: dict[str, tuple[type[Message], str]] = {
    "blocks": (NET, 'layer { name: "a" pooling_param { pool: AVE } } layer { }'),
    "colon before a block": (NET, 'layer: { name: "a" pooling_param: { pool: 1 } }'),
    "angle brackets": (NET, 'layer < name: "a" include: < phase: TEST > >'),
    "list of numbers": (
        NET,
        "layer { convolution_param { kernel_size: [3, 5] pad: [] stride: [2] stride: 1 } }",
    ),
    "list of texts": (NET, "layer { top: ['a', \"b\" 'c'] }"),
    "list of blocks": (NET, "layer { param: [{ lr_mult: 1 }, { lr_mult: 2 decay_mult: 0 }] }"),
    "list of blocks without colon": (NET, "layer { param [{ lr_mult: 1 }] include [] }"),
    "separators": (SOLVER, "base_lr: 0.1, momentum: 0.9; gamma: 1,\nnet: 'n';"),
    "value in the next line": (SOLVER, 'net:\n  "a"\n  "b"\nbase_lr\n:\n0.1'),
    "comments": (SOLVER, "# one\nbase_lr: 0.1 # two: { \"\n#\nnet: 'a#b'"),
    "quotes": (SOLVER, r"""net: 'a"b' train_net: "c'd\"e" """),
    "escapes": (SOLVER, r'net: "\n\t\\\x41\101\303\251"'),
    "any script": (SOLVER, 'net: "größe/大小.prototxt"'),
    "floats": (
        SOLVER,
        "base_lr: .5 gamma: 1.f power: -1e-3f momentum: 0 weight_decay: 5E-4 clip_gradients: inf",
    ),
    "minus infinity": (SOLVER, "clip_gradients: -inf"),
    "integers": (SOLVER, "random_seed: -0x1F max_iter: 017 display: 0 stepvalue: [1, 0xA]"),
    "bools": (SOLVER, "debug_info: t snapshot_diff: 1 test_initialization: f snapshot_after_train: False"),
    "enums": (SOLVER, "solver_mode: CPU snapshot_format: 0 solver_type: ADAM"),
    "blobs": (NET, "layer { blobs { shape { dim: [2, 1] } data: [1, 2] double_data: 0.1 } }"),
    "required": (NET, "layer { clip_param { min: -1 max: 1 } }"),
    "reshape with -1": (NET, "layer { reshape_param { shape { dim: 0 dim: -1 } } }"),
    "old layers": (NET, 'layers { type: CONVOLUTION blobs_lr: 1 layer { name: "v0" kernelsize: 5 } }'),
    "of dtrain": (SOLVER, "dtrain_param { test_on_rank_0: true }"),
    "empty block": (NET, "state { }"),
    "no blanks": (NET, 'name:"a"layer{name:"b"}layer<top:"c"top:"d">'),
}


@pytest.mark.parametrize("form", VALID_FORMS)
def test_parser_of_a_valid_form_reads_what_protobuf_reads(form: str) -> None:
    message_type, text = VALID_FORMS[form]
    assert parse_text(text, message_type).message == text_format.Parse(text, message_type())


MISTAKES: dict[str, tuple[type[Message], str, list[str]]] = {
    "unknown field": (
        NET,
        'layer {\n convolution_param {\n kernal_size: 5\n }\n name: "conv1"\n}',
        ['f:3: layer "conv1": convolution_param has no field "kernal_size"; did you mean "kernel_size"?'],
    ),
    "unknown block": (
        NET,
        'layer { name: "a" polling_param { pool: MAX foo { } } top: "b" }',
        ['f:1: layer "a" has no field "polling_param"; did you mean "pooling_param"?'],
    ),
    "unknown list": (
        SOLVER,
        "test_itre: [1, 2]\nbase_lr: 1",
        ['f:1: a solver has no field "test_itre"; did you mean "test_iter"?'],
    ),
    "case of a name": (
        SOLVER,
        "Base_lr: 1\nnet: ''",
        ['f:1: a solver has no field "Base_lr"; did you mean "base_lr"?'],
    ),
    "given twice": (SOLVER, "base_lr: 1\n\nbase_lr: 2", ["f:3: base_lr is given twice, first in line 1"]),
    "block given twice": (
        NET,
        'layer {\n name: "a"\n relu_param { }\n relu_param { negative_slop: 1 }\n}',
        [
            'f:4: layer "a": relu_param is given twice, first in line 3',
            'f:4: layer "a": relu_param has no field "negative_slop"; did you mean "negative_slope"?',
        ],
    ),
    "type": (
        NET,
        'layer { name: "ip"\n inner_product_param { num_output: "twenty" } }',
        ['f:2: layer "ip": inner_product_param.num_output must be a whole number, got "twenty"'],
    ),
    "type of an item": (SOLVER, "test_iter: [1,\n x,\n 3]", ["f:2: test_iter must be a whole number, got x"]),
    "limits": (
        SOLVER,
        "max_iter: 3000000000",
        ["f:1: max_iter must be -2147483648 to 2147483647, got 3000000000"],
    ),
    "rule": (
        NET,
        'layer { name: "d" dropout_param { dropout_ratio: 1 } }',
        ['f:1: layer "d": dropout_param.dropout_ratio must be at least 0 and less than 1, got 1'],
    ),
    "enum": (SOLVER, "solver_mode: TPU", ["f:1: solver_mode must be CPU or GPU, got TPU"]),
    "block in place of a value": (
        NET,
        'layer { name: "a" top: { b: "c" } bottom: "d" }',
        ['f:1: layer "a": top must be text in quotes, got { … }'],
    ),
    "value in place of a block": (NET, 'layer: 5\nlayer { name: "a" }', ["f:1: layer must be { … }, got 5"]),
    "list in place of a value": (SOLVER, "net: ['a']", ["f:1: net must be text in quotes, got a list"]),
    "list without comma": (SOLVER, "test_iter: [1 2]", ["f:1: test_iter must go on with , or ], got 2"]),
    "list without end": (
        SOLVER,
        "test_iter: [1, 2\ngamma: 1",
        ["f:2: test_iter must go on with , or ], got gamma"],
    ),
    "list with comma at the end": (
        SOLVER,
        "test_iter: [1, ]\ngamma: 1",
        ["f:1: test_iter needs a value: a whole number"],
    ),
    "no colon": (
        SOLVER,
        'net "a"\nlr_policy = "b"',
        ['f:1: net needs a colon: net: "a"', 'f:2: lr_policy needs a colon: lr_policy: "b"'],
    ),
    "no value": (
        SOLVER,
        "gamma:\nbase_lr: 1\npower",
        ["f:1: gamma needs a value: a number", "f:3: power needs a value: a number"],
    ),
    "no closing quote": (
        NET,
        'layer { name: "a\n top: "b }\nlayer { name: "c" tpo: "d" }',
        [
            'f:1: a net must close each " in its own line, got "a',
            'f:2: a net must close each " in its own line, got "b',
            'f:3: layer "c" has no field "tpo"; did you mean "top"?',
        ],
    ),
    "quote in the middle": (
        NET,
        'layer {\n name: "a type: "ReLU"\n tpo: "b"\n}',
        [
            'f:2: a net must close each " in its own line, got "',
            'f:3: layer "a type: " has no field "tpo"; did you mean "top"?',
        ],
    ),
    "required": (
        NET,
        'layer { name: "c" clip_param { min: 0 } }',
        ['f:1: layer "c": clip_param needs the field "max"'],
    ),
    "foreign comment": (
        SOLVER,
        "// base_lr: 1\ngamma: 1",
        ["f:1: a solver must have a field's name here, got /; comments begin with #"],
    ),
    "number as a name": (SOLVER, "5: 3\ngamma: 1", ["f:1: a solver must have a field's name here, got 5"]),
    "in a net inside a solver": (
        SOLVER,
        'net_param {\n layer { name: "a" tpo: "b" }\n}',
        ['f:2: layer "a" has no field "tpo"; did you mean "top"?'],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_parser_of_a_mistake_reports_it_with_its_line(mistake: str) -> None:
    message_type, text, problems = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        parse_text(text, message_type, "f")
    assert list(caught.value.problems) == problems


def test_parser_of_a_file_with_all_mistakes_reports_each_and_no_others() -> None:
    texts, expected, line = [], [], 0
    for message_type, text, problems in MISTAKES.values():
        if message_type is NET and "first in line" not in problems[0]:
            texts.append(text)
            expected += [
                (line + int(problem.split(":")[1]), problem.split(" ", 1)[1]) for problem in problems
            ]
            line += text.count("\n") + 1
    with pytest.raises(UserError) as caught:
        parse_text("\n".join(texts), NET, "f")
    assert list(caught.value.problems) == [f"f:{number}: {problem}" for number, problem in expected]


PIECES = re.findall(r"\w+|\s+|.", "\n".join(text for _, text in VALID_FORMS.values()))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=40))
def test_parser_of_any_text_gives_a_message_or_mistakes_in_its_lines(text: str) -> None:
    try:
        parse_text(text, NET, "f")
    except UserError as error:
        places = [re.match(r"f(?::(\d+))?: ", problem) for problem in error.problems]
        assert all(place and 1 <= int(place[1] or 1) <= text.count("\n") + 1 for place in places)


def test_parser_of_5000_lines_gives_the_line_of_the_last_field() -> None:
    layer = 'layer {\n  name: "conv"\n  convolution_param {\n    num_output: 20\n  }\n}\n'
    document = parse_text(layer * 834, NET, "f")
    assert len(document.message.layer) == 834
    assert document.where("layer", 833, "convolution_param", "num_output") == "f:5002"
