"""Net files are told apart by content, and what is no net is one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.prototxt import Document
from dtrain.launcher.net_file import NetFile, read_net_file, replace_file, write_net_file
from dtrain.proto import caffe_pb2

NET = caffe_pb2.NetParameter(name="n")
NET.layer.add(name="ü", type="ReLU").blobs.add(shape=caffe_pb2.BlobShape(dim=[2]), data=[0.5, 1 / 3])


@pytest.mark.parametrize("as_binary", [False, True])
@pytest.mark.parametrize("name", ["net.prototxt", "net.caffemodel", "net"])
def test_read_net_file_goes_by_content(tmp_path: Path, as_binary: bool, name: str) -> None:
    path = str(tmp_path / name)
    write_net_file(path, NET, as_binary)
    file = read_net_file(path)
    assert (file.document.message, file.document.path, file.is_binary) == (NET, path, as_binary)
    assert bool(file.document.lines) is not as_binary
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        (b"", "must describe a net, got an empty file"),
        (b"layer { nam: 1 }", 'layer has no field "nam"'),
        (b"\x89HDF\r\n\x1a\n....", "must be a net, got HDF5, which holds weights alone"),
        (b"\x00\x01\x02\x03", "must be a net, text or binary, got: 0 is no field's tag at byte 0"),
        (NET.SerializeToString()[:-3], "must be a net, text or binary, got: "),
        (
            caffe_pb2.SolverState(iter=3, learned_net="x").SerializeToString(),
            "file must be a .caffemodel, got a ",
        ),
        (caffe_pb2.NetParameter(name="\x01").SerializeToString(), "must be a net, got a file without layers"),
    ],
)
def test_read_net_file_of_something_else_is_a_sentence(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "net"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_net_file(str(path))
    assert problem in error.value.problems[0]
    assert error.value.problems[0].startswith(str(path))


def test_read_net_file_with_a_fork_s_fields_names_them_and_leaves_them_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = caffe_pb2.LayerParameter(name="f", relu_param=caffe_pb2.ReLUParameter(negative_slope=2))
    # Field 20000 of the layer, and field 20001 inside a relu_param (number 123) that is merged into its own.
    foreign = plain.SerializeToString() + b"\x80\xe2\x09\x05" + b"\xda\x07\x04\x88\xe2\x09\x01"
    (tmp_path / "net").write_bytes(b"\xa2\x06" + bytes([len(foreign)]) + foreign + NET.SerializeToString())
    net = read_net_file(str(tmp_path / "net")).document.message
    assert net == caffe_pb2.NetParameter(name="n", layer=[plain, NET.layer[0]])
    assert (
        net.SerializeToString()
        == caffe_pb2.NetParameter(name="n", layer=[plain, NET.layer[0]]).SerializeToString()
    )
    assert caplog.messages == [
        f'{tmp_path / "net"}: layer "f": fields 20000, 20001 are left out: dtrain does not know them; they are a '
        "fork's"
    ]


def test_net_file_too_large_for_protobuf_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "net")
    write_net_file(path, NET, as_binary=True)
    size = NET.ByteSize()
    monkeypatch.setattr("dtrain.launcher.net_file.MAX_MESSAGE_BYTES", size - 1)
    with pytest.raises(UserError, match=f"a binary net must be at most {size - 1} bytes, .* got {size}$"):
        read_net_file(path)
    with pytest.raises(UserError, match=f"a binary net must be at most {size - 1} bytes, got {size}$"):
        write_net_file(path, NET, as_binary=True)


def test_replace_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "no" / "net", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(UserError, match=f"^{path}: must be a file that can be written, got: {reason}$"):
            replace_file(str(path), b"x")
    assert [name for name in os.listdir(tmp_path.parent) if name.endswith(".partial")] == []


def test_net_file_with_another_document_is_of_the_same_kind() -> None:
    other = Document(caffe_pb2.NetParameter(name="o"), "o", {})
    file = NetFile(Document(NET, "n", {}), is_binary=True).with_document(other)
    assert (file.document, file.is_binary) == (other, True)
