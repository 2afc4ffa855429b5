"""What is said of files that are not what they should be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots.message_file import (
    CAFFEMODEL,
    SOLVERSTATE,
    check_kind,
    check_message_size,
    contains_hdf5,
    is_hdf5,
    kind_of,
    map_file,
    read_message,
)
from dtrain.proto import caffe_pb2

NET = caffe_pb2.NetParameter(name="n")
NAMELESS_NET = caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="a")])
V1_NET = caffe_pb2.NetParameter(layers=[caffe_pb2.V1LayerParameter(name="a")])
STATE = caffe_pb2.SolverState(iter=0, learned_net="x")


@pytest.mark.parametrize(
    ("message", "kind"), [(NET, CAFFEMODEL), (NAMELESS_NET, CAFFEMODEL), (V1_NET, None), (STATE, SOLVERSTATE)]
)
def test_kind_of_message_is_told_by_its_fields(message: object, kind: str | None) -> None:
    assert kind_of(memoryview(message.SerializeToString())) == kind  # type: ignore[attr-defined]


def test_read_message_gives_the_whole_file_to_parse(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(NET.SerializeToString())
    assert read_message(path, CAFFEMODEL, bytes) == NET.SerializeToString()


@pytest.mark.parametrize(
    ("content", "kind", "sentence"),
    [
        (
            NET.SerializeToString(),
            SOLVERSTATE,
            "file must be a .solverstate, got a .caffemodel; give the .solverstate beside it, "
            "or start from it with --weights",
        ),
        (
            STATE.SerializeToString(),
            CAFFEMODEL,
            "file must be a .caffemodel, got a .solverstate; give the .caffemodel beside it, "
            "or resume from it with --snapshot",
        ),
        (b"", CAFFEMODEL, "file must be a .caffemodel, got an empty file; use an earlier snapshot"),
        (
            b"\x89HDF\r\n\x1a\n....",
            CAFFEMODEL,
            "file must be a binary .caffemodel, got HDF5",
        ),
        (
            b'name: "LeNet"',
            CAFFEMODEL,
            "file must be a whole .caffemodel, got 110 is no field's tag at byte 0; "
            "it is truncated, damaged or of another kind: use an earlier snapshot",
        ),
    ],
)
def test_read_message_wrong_content_is_explained(
    tmp_path: Path, content: bytes, kind: str, sentence: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_message(path, kind, bytes)
    assert str(error.value) == f"{path}: {sentence}"


@pytest.mark.parametrize("found", [CAFFEMODEL, None])
def test_check_kind_of_the_right_or_an_unknown_kind_passes(found: str | None) -> None:
    check_kind("x", CAFFEMODEL, found)


def test_check_kind_of_the_other_kind_says_what_to_do() -> None:
    with pytest.raises(UserError, match="^x: file must be a .solverstate, got a .caffemodel; give the"):
        check_kind("x", SOLVERSTATE, CAFFEMODEL)


@pytest.mark.parametrize(
    ("before", "found"), [(0, True), (512, True), (4096, True), (1, False), (511, False), (1536, False)]
)
def test_is_hdf5_finds_the_signature_where_hdf5_has_it(before: int, found: bool) -> None:
    assert is_hdf5(memoryview(bytes(before) + b"\x89HDF\r\n\x1a\n" + bytes(20))) is found


def test_contains_hdf5_of_files_and_of_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "y").write_bytes(b"\n\x01n")
    (tmp_path / "empty").touch()
    assert [contains_hdf5(tmp_path / name) for name in ("x", "y", "empty", "none")] == [
        True,
        False,
        None,
        None,
    ]


def test_map_file_missing_names_its_neighbours(tmp_path: Path) -> None:
    for number in range(1, 8):
        (tmp_path / f"{number}.caffemodel").touch()
    with pytest.raises(UserError) as error:
        map_file(tmp_path / "x.caffemodel", CAFFEMODEL)
    names = ", ".join(f"{number}.caffemodel" for number in range(1, 6))
    assert str(error.value).endswith(
        f"x.caffemodel: file must exist, got no such file; {tmp_path} has: {names}, …"
    )


def test_map_file_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"its folder {tmp_path}/no does not exist either$"):
        map_file(tmp_path / "no" / "x.caffemodel", CAFFEMODEL)


def test_map_file_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file must be a .caffemodel, got a directory$"):
        map_file(tmp_path, CAFFEMODEL)


def test_map_file_unreadable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"1")

    def refuse(*arguments: object, **options: object) -> object:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("builtins.open", refuse)  # a mode would not stop root
    with pytest.raises(UserError, match="x: file must be readable, got: Permission denied$"):
        map_file(tmp_path / "x", CAFFEMODEL)


def test_map_file_survives_replacement(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    view = map_file(tmp_path / "x", CAFFEMODEL)
    (tmp_path / "y").write_bytes(b"new and longer")
    os.replace(tmp_path / "y", tmp_path / "x")
    assert bytes(view) == b"old"


def test_check_message_size_over_two_gigabytes_raises() -> None:
    most = np.broadcast_to(np.float32(0), (2**29 - 1,))
    check_message_size("x", [most, b"123"])
    with pytest.raises(
        UserError, match="^x: a binary snapshot must be at most 2147483647 bytes .* got 2147483648;"
    ):
        check_message_size("x", [most, b"1234"])
