from __future__ import annotations

import pytest

from dtrain.core.prototxt import Document, Path, parse_text
from dtrain.proto import caffe_pb2

TEXT = """\
name: "LeNet"
layer {
  name: "conv1"
  bottom: "data"
  bottom: "label"
  convolution_param {
    kernel_size: [5, 3]
    weight_filler {
      type: "xavier"
    }
  }
}
"""
DOCUMENT: Document[caffe_pb2.NetParameter] = parse_text(TEXT, caffe_pb2.NetParameter, "lenet.prototxt")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 1),
        (("layer", 0), 2),
        (("layer", 0, "bottom", 1), 5),
        (("layer", 0, "convolution_param"), 6),
        (("layer", 0, "convolution_param", "kernel_size", 1), 7),
        (("layer", 0, "convolution_param", "weight_filler", "type"), 9),
    ],
)
def test_line_of_an_element_in_the_file_is_its_own(path: Path, line: int) -> None:
    assert DOCUMENT.line(*path) == line
    assert DOCUMENT.where(*path) == f"lenet.prototxt:{line}"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("layer", 0, "top", 0), 2),
        (("layer", 0, "convolution_param", "pad", 0), 6),
        (("layer", 0, "convolution_param", "bias_filler", "type"), 6),
        (("layer", 0, "bottom"), 4),
    ],
)
def test_where_of_an_element_that_is_not_in_the_file_is_the_nearest_around_it(path: Path, line: int) -> None:
    assert DOCUMENT.where(*path) == f"lenet.prototxt:{line}"


def test_where_of_nothing_known_is_the_file() -> None:
    assert DOCUMENT.where() == "lenet.prototxt"
    assert DOCUMENT.where("state", "phase") == "lenet.prototxt"
    assert DOCUMENT.line("state", "phase") == 1
