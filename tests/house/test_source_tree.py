"""The rules see what they are about: all five folders, each module once, no generated code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.source_tree import GENERATED, SOURCE_FOLDERS, Source, parse, read_sources


def test_read_sources_of_the_repository_covers_every_folder(sources: list[Source]) -> None:
    assert {source.path.partition("/")[0] for source in sources} == set(SOURCE_FOLDERS)


def test_read_sources_of_linked_folders_reads_each_module_once(tmp_path: Path) -> None:
    for name in ("core/net.py", "dtrain/__init__.py", *GENERATED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "dtrain/core").symlink_to("../core")
    assert [source.path for source in read_sources(root=tmp_path)] == ["core/net.py", "dtrain/__init__.py"]


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("core/net.py", "dtrain.core.net"),
        ("core/layers/__init__.py", "dtrain.core.layers"),
        ("dtrain/__init__.py", "dtrain"),
        ("dtrain/proto/caffe_pb2.py", "dtrain.proto.caffe_pb2"),
        ("tests/core/test_net.py", "tests.core.test_net"),
    ],
)
def test_module_of_a_path_is_the_imported_name(path: str, module: str) -> None:
    assert parse(path, "").module == module
