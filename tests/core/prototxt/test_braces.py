from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.core.prototxt import parse_text
from dtrain.proto import caffe_pb2


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            'layer {\n name: "a"\n relu_param {\n negative_slope: 0\n}\nlayer {\n name: "b"\n}\n',
            ['n:1: layer "a" opens a { that is not closed before line 6'],
        ),
        (
            'layer {\n name: "a"\n scale_param {\n filler {\n value: 1\n bias_filler { value: 0 }\n }\n}\n',
            ['n:4: layer "a": scale_param.filler opens a { that is not closed before line 6'],
        ),
        (
            'layer {\n name: "a"\n relu_param {\n negative_slope: 0\nlayer {\n name: "b"\n}\n',
            [
                'n:1: layer "a" opens a { that is not closed before line 5',
                'n:3: layer "a": relu_param opens a { that is not closed before line 5',
            ],
        ),
        ('layer {\n name: "a"\n', ['n:1: layer "a" opens a { that is never closed']),
        ("layer <\n", ["n:1: layer opens a < that is never closed"]),
        ('layer {\n name: "a"\n>\n', ['n:3: layer "a" must end with }, got >']),
        ("}\n", ["n:1: a net has a } that closes nothing"]),
        (
            'layer {\n name: "a" }\n type: "ReLU"\n relu_param { }\n}\nlayer { name: "b" typo: "c" }\n',
            [
                "n:5: a net has a } that closes nothing; the block before it ended in line 2",
                'n:6: layer "b" has no field "typo"; did you mean "type"?',
            ],
        ),
        (
            'layer\n name: "a"\n type: "ReLU"\n}\nlayer { name: "b" }\n',
            ["n:1: layer needs a { after its name"],
        ),
        (
            # Balanced braces: the field is in the wrong place, and no brace is missing.
            'layer {\n name: "a"\n relu_param {\n param { lr_mult: 1 }\n }\n}\n',
            ['n:4: layer "a": relu_param has no field "param"; its fields are negative_slope, engine'],
        ),
    ],
    ids=[
        "layer not closed",
        "inner block not closed",
        "two not closed",
        "end of file",
        "end of file with <",
        "other closer",
        "closer alone",
        "closed too early",
        "no opener",
        "wrong place",
    ],
)
def test_braces_that_do_not_match_are_one_mistake_each(text: str, problems: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_text(text, caffe_pb2.NetParameter, "n")
    assert list(caught.value.problems) == problems
