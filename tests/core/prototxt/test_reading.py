from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.protobuf.message import Message

from dtrain.core.errors import UserError
from dtrain.core.prototxt import is_binary, parse_text, read_text
from dtrain.proto import caffe_pb2

NET = 'name: "LeNet" # Größe\nlayer { name: "data" }\n'


def _problems(path: Path | str, message_type: type[Message] = caffe_pb2.NetParameter) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        read_text(path, message_type)
    return caught.value.problems


@pytest.mark.parametrize(
    "data",
    [
        NET.encode(),
        b"\xef\xbb\xbf" + NET.encode(),
        NET.replace("\n", "\r\n").encode(),
        NET.encode("latin-1"),
        NET.rstrip().encode(),
    ],
    ids=["plain", "byte order mark", "windows", "comment in latin-1", "no last line end"],
)
def test_read_text_takes_files_as_editors_write_them(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    document = read_text(path, caffe_pb2.NetParameter)
    assert document.message == caffe_pb2.NetParameter(
        name="LeNet", layer=[caffe_pb2.LayerParameter(name="data")]
    )
    assert document.where("layer", 0) == f"{path}:2"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "must describe a net, got an empty file"),
        (b" \n# only a comment\n", "must describe a net, got an empty file"),
        (NET.encode("utf-16"), "must be UTF-8 text, got UTF-16; save it as UTF-8"),
        (
            caffe_pb2.NetParameter(
                name="LeNet", layer=[caffe_pb2.LayerParameter(name="a")]
            ).SerializeToString(),
            "must be a prototxt, got a binary file; weights (.caffemodel) are given by --weights, "
            "a solver's state by --snapshot",
        ),
        (b'net: "a.prototxt"\nbase_lr: 0.1\n', "must describe a net, got a solver"),
    ],
    ids=["empty", "comment", "utf-16", "caffemodel", "solver"],
)
def test_read_text_of_something_else_is_one_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    assert _problems(path) == (f"{path}: {sentence}",)


def test_read_text_of_a_net_as_solver_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('name: "LeNet"\nlayer { name: "data" }\nlayer { name: "conv1" }\n')
    assert _problems(path, caffe_pb2.SolverParameter) == (f"{path}: must describe a solver, got a net",)


def test_read_text_of_a_missing_file_suggests_the_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "lenet_solver.prototxt").write_text(NET)
    path = tmp_path / "lenet_slover.prototxt"
    assert _problems(path) == (f'{path}: no such file; did you mean "lenet_solver.prototxt"?',)


def test_read_text_of_a_file_in_a_missing_folder_says_that_it_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "net.prototxt"
    assert _problems(path) == (f"{path}: no such file",)


def test_read_text_of_a_folder_says_so(tmp_path: Path) -> None:
    assert _problems(tmp_path) == (f"{tmp_path}: must be a file, got a folder",)


def test_read_text_of_a_name_that_can_be_no_files_says_so() -> None:
    assert _problems(Path("a\0b")) == ("a\0b: must be a file's name, got one with a NUL character",)


def test_read_text_of_an_unreadable_file_gives_the_systems_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, so that a mode of 0 would not do.
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert _problems("net.prototxt") == ("net.prototxt: must be readable, got: Permission denied",)


def test_read_text_with_a_value_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes('# Größe\nname: "Größe"\n'.encode("latin-1"))
    assert _problems(path) == (f"{path}:2: name must be UTF-8, got the byte 0xf6",)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="a")]).SerializeToString(), True),
        (caffe_pb2.NetParameter(layers=[caffe_pb2.V1LayerParameter(name="a")]).SerializeToString(), True),
        (b'name: "n"\r\n\tlayer { }\x0c', False),
        ('# Größe\nname: "n"'.encode("latin-1"), False),
        (b"", False),
    ],
)
def test_is_binary_tells_nets_with_weights_from_texts(data: bytes, expected: bool) -> None:
    assert is_binary(data) is expected


def test_parse_text_of_nothing_is_an_empty_message() -> None:
    document = parse_text("", caffe_pb2.NetParameter)
    assert document.message == caffe_pb2.NetParameter()
    assert document.where() == "<string>"
