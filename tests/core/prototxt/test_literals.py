from __future__ import annotations

import math

import pytest
from google.protobuf.message import Message

from dtrain.core.prototxt.literals import LiteralError, convert, shown
from dtrain.core.prototxt.ranges import Value
from dtrain.core.prototxt.schema import Field, schema_of
from dtrain.core.prototxt.tokens import tokenize
from dtrain.proto import caffe_pb2


def _field(message: type[Message], name: str) -> Field:
    return schema_of(message.DESCRIPTOR).fields[name]


SIGNED = _field(caffe_pb2.SolverParameter, "random_seed")
PAD = _field(caffe_pb2.ConvolutionParameter, "pad")
NUM_OUTPUT = _field(caffe_pb2.ConvolutionParameter, "num_output")
FLOAT = _field(caffe_pb2.PowerParameter, "shift")
DOUBLE = _field(caffe_pb2.BlobProto, "double_data")
BOOL = _field(caffe_pb2.ConvolutionParameter, "bias_term")
POOL = _field(caffe_pb2.PoolingParameter, "pool")
V1_TYPE = _field(caffe_pb2.V1LayerParameter, "type")
STRING = _field(caffe_pb2.LayerParameter, "name")
BYTES = _field(caffe_pb2.Datum, "data")


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        (SIGNED, "-7", -7),
        (SIGNED, "- 7", -7),
        (SIGNED, "0x1F", 31),
        (SIGNED, "-0x10", -16),
        (SIGNED, "017", 15),
        (SIGNED, "-9223372036854775808", -(2**63)),
        (PAD, "0", 0),
        (PAD, "4294967295", 2**32 - 1),
        (FLOAT, "1", 1.0),
        (FLOAT, "-.5", -0.5),
        (FLOAT, "2.", 2.0),
        (FLOAT, "00.5", 0.5),
        (FLOAT, "0", 0.0),
        (FLOAT, "1.5F", 1.5),
        (FLOAT, "1e-3f", 0.001),
        (FLOAT, "2E+2", 200.0),
        (FLOAT, "inf", math.inf),
        (FLOAT, "-Infinity", -math.inf),
        (FLOAT, "inff", math.inf),
        (FLOAT, "3.4028235e+38", 3.4028235e38),  # how the largest float is written: rounded up
        (FLOAT, "-3.40282355e38", -3.40282355e38),
        (DOUBLE, "1e300", 1e300),
        *((BOOL, word, True) for word in ("true", "True", "t", "1", "0x1")),
        *((BOOL, word, False) for word in ("false", "False", "f", "0")),
        (POOL, "AVE", 1),
        (POOL, "2", 2),
        (STRING, "'it\"s'", 'it"s'),
        (STRING, '"data/" "mnist"', "data/mnist"),
        (STRING, r'"a\n\t\\\"\101\x42\u00e9\U0001F600"', 'a\n\t\\"AB\u00e9\U0001f600'),
        (STRING, r'"\303\251"', "\u00e9"),
        (STRING, '"Größe"', "Größe"),
        (BYTES, r'"\xff\000"', b"\xff\x00"),
    ],
)
def test_convert_of_a_valid_value_gives_it(field: Field, text: str, expected: Value) -> None:
    value = convert(field, tokenize(text)[:-1])
    assert value == expected
    assert type(value) is type(expected)


def test_convert_of_nan_gives_nan() -> None:
    value = convert(FLOAT, tokenize("nan")[:-1])
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        (PAD, '"twenty"', 'must be a whole number, got "twenty"'),
        (PAD, "1.5", "must be a whole number, got 1.5"),
        (PAD, "20x", "must be a whole number, got 20x"),
        (PAD, "08", "must be a whole number, got 08"),
        (PAD, "1_000", "must be a whole number, got 1_000"),
        (PAD, "-3", "must be 0 to 4294967295, got -3"),
        (NUM_OUTPUT, "-3", "must be at least 1, got -3"),
        (NUM_OUTPUT, "4294967296", "must be 0 to 4294967295, got 4294967296"),
        (FLOAT, "fast", "must be a number, got fast"),
        (FLOAT, "0x10", "must be a number, got 0x10"),
        (FLOAT, "075", "must be a number, got 075"),
        (FLOAT, "-1e39", "must be -3.4028e+38 to 3.4028e+38, got -1e39"),
        (FLOAT, "3.4028236e+38", "must be -3.4028e+38 to 3.4028e+38, got 3.4028236e+38"),
        (DOUBLE, "1e999", "must be a 64-bit number, got 1e999"),
        (BOOL, "yes", "must be true or false, got yes"),
        (BOOL, "2", "must be true or false, got 2"),
        (POOL, "max", "must be MAX, AVE or STOCHASTIC, got max"),
        (POOL, "7", "must be MAX, AVE or STOCHASTIC, got 7"),
        (POOL, '"MAX"', 'must be MAX, AVE or STOCHASTIC, got "MAX"; leave out the quotes'),
        (V1_TYPE, "CONVOLUTOIN", 'must be one of 40 names, got CONVOLUTOIN; did you mean "CONVOLUTION"?'),
        (STRING, "Convolution", 'must be text in quotes, got Convolution; write "Convolution"'),
        (STRING, r'"C:\data"', r"has an unknown escape sequence \d; a backslash itself is written \\"),
        (STRING, r'"\xzz"', r"has an unknown escape sequence \x; a backslash itself is written \\"),
        (
            STRING,
            r'"\U00110000"',
            r"has an unknown escape sequence \U00110000; a backslash itself is written \\",
        ),
        (STRING, r'"\377"', "must be UTF-8, got the byte 0xff"),
        (STRING, '"\udcb5"', "must be UTF-8, got the byte 0xb5"),
    ],
)
def test_convert_of_a_wrong_value_says_what_it_must_be(field: Field, text: str, sentence: str) -> None:
    with pytest.raises(LiteralError) as caught:
        convert(field, tokenize(text)[:-1])
    assert str(caught.value) == sentence


def test_convert_of_an_unknown_v1_type_far_from_all_names_lists_them() -> None:
    with pytest.raises(LiteralError, match="must be NONE, ABSVAL, .* or THRESHOLD, got QQQ$"):
        convert(V1_TYPE, tokenize("QQQ")[:-1])


def test_shown_of_a_long_value_is_cut_to_40_characters() -> None:
    text = shown(tokenize('"' + "a" * 100 + '"')[:-1])
    assert text == '"' + "a" * 38 + "…"
