from __future__ import annotations

import time

import pytest

from dtrain.core.errors import UserError
from dtrain.core.prototxt import Path, parse_text
from dtrain.core.prototxt.mistakes import Mistakes, noun
from dtrain.proto import caffe_pb2

NET = caffe_pb2.NetParameter(
    layer=[caffe_pb2.LayerParameter(name="conv1"), caffe_pb2.LayerParameter()],
    layers=[
        caffe_pb2.V1LayerParameter(name="v1"),
        caffe_pb2.V1LayerParameter(layer=caffe_pb2.V0LayerParameter(name="v0")),
    ],
)


def _reported(mistakes: Mistakes) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        mistakes.raise_if_any(NET)
    return caught.value.problems


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ((), "a net"),
        (("state", "phase"), "state.phase"),
        (("layer", 0), 'layer "conv1"'),
        (("layer", 0, "convolution_param", "pad", 2), 'layer "conv1": convolution_param.pad'),
        (("layer", 1, "convolution_param"), "layer.convolution_param"),
        (("layer", 9, "name"), "layer.name"),
        (("layers", 0, "pooling_param", "pool"), 'layer "v1": pooling_param.pool'),
        (("layers", 1, "bottom", 0), 'layer "v0": bottom'),
        (("layers", 1, "layer", "pad"), 'layer "v0": pad'),
        (("layer", 0, "clip_param", 1, "min"), 'layer "conv1": clip_param.min'),
    ],
)
def test_mistakes_name_the_element_with_its_layer(path: Path, subject: str) -> None:
    mistakes = Mistakes("net.prototxt")
    mistakes.add(7, path, "must be odd, got 4")
    assert _reported(mistakes) == (f"net.prototxt:7: {subject} must be odd, got 4",)


def test_mistakes_are_reported_by_line_and_once_each() -> None:
    mistakes = Mistakes("f")
    for line, text in ((5, "b"), (2, "a"), (5, "b"), (5, "c")):
        mistakes.add(line, (), text)
    assert _reported(mistakes) == ("f:2: a net a", "f:5: a net b", "f:5: a net c")


def test_mistakes_after_a_slip_in_the_same_line_are_dropped() -> None:
    mistakes = Mistakes("f")
    mistakes.add(3, (), "before")
    mistakes.add_slip(3, (), "slip")
    mistakes.add(3, (), "after")
    mistakes.add(4, (), "elsewhere")
    assert _reported(mistakes) == ("f:3: a net before", "f:3: a net slip", "f:4: a net elsewhere")


def test_mistakes_that_are_withdrawn_are_not_reported() -> None:
    mistakes = Mistakes("f")
    mistakes.add(1, (), "cause")
    mistakes.add(2, (), "effect")
    mistakes.withdraw_since(1)
    assert len(mistakes) == 1
    assert _reported(mistakes) == ("f:1: a net cause",)


def test_mistakes_of_a_line_count_again_when_its_slip_is_withdrawn() -> None:
    mistakes = Mistakes("f")
    mistakes.add_slip(1, (), "first slip")
    mistakes.add_slip(2, (), "second slip")
    mistakes.withdraw_since(1)
    for line in (1, 2):
        mistakes.add(line, (), "mistake")
    assert _reported(mistakes) == ("f:1: a net first slip", "f:2: a net mistake")


@pytest.mark.parametrize("line", ["name = ", "x: 1 }", "layer {", "name: 3 name: 3"])
def test_mistakes_in_each_of_many_lines_take_no_longer_for_each(line: str) -> None:
    start_s = time.process_time()
    with pytest.raises(UserError):
        parse_text(f"{line}\n" * 6000, caffe_pb2.NetParameter)
    assert time.process_time() - start_s < 2  # half a minute when each is searched for among all others


def test_no_mistakes_raise_nothing() -> None:
    Mistakes("f").raise_if_any(NET)


def test_noun_of_files_is_plain_and_of_others_the_message() -> None:
    kinds = (caffe_pb2.NetParameter, caffe_pb2.SolverParameter, caffe_pb2.BlobProto)
    assert [noun(kind) for kind in kinds] == ["a net", "a solver", "BlobProto"]
