"""Tests of data/image_list.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtrain.data.errors import DataError
from dtrain.data.image_list import ImageList, read_file


def test_image_list_splits_lines_at_the_last_blank(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg 3\nb c 1.png -7\r\n /x/d  +2\ne\x0cf.bmp 007")
    images = ImageList(str(path))
    assert images.paths == ["a.jpg", "b c 1.png", " /x/d ", "e\x0cf.bmp"]
    assert images.labels.tolist() == [3, -7, 2, 7]
    assert len(images) == 4
    assert images.line(2) == f"{path}:3"


def test_image_list_keeps_names_that_are_no_text(tmp_path: Path) -> None:
    name = b"caf\xe9 \xff.jpg"
    (tmp_path / "list.txt").write_bytes(name + b" 5\n")
    path = ImageList(str(tmp_path / "list.txt")).paths[0]
    assert os.fsencode(path) == name
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"here")
    assert read_file(f"{tmp_path}/{path}") == b"here"


@pytest.mark.parametrize(
    "line",
    ["a.jpg", "a.jpg\t1", "a.jpg one", "a.jpg 1.5", "a.jpg 1 ", "", " 1", "a 2147483648", f"a {'9' * 5000}"],
)
def test_image_list_with_a_line_of_another_form_names_it(line: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"a.jpg 0\n{line}\nb.jpg 1\n")
    with pytest.raises(DataError) as caught:
        ImageList(str(path))
    assert caught.value.problem == (
        f'{path}:2: line must be a path, a blank and a whole number as label, got "{line}"'
    )


def test_image_list_that_is_empty_or_missing_says_so(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    with pytest.raises(DataError, match="list.txt: image list must be readable, got: No such file"):
        ImageList(str(path))
    path.write_text("")
    with pytest.raises(DataError, match="list.txt: image list must have at least one line, got none"):
        ImageList(str(path))


def test_read_file_of_what_can_not_be_read_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.jpg: image must be readable, got: No such file or directory"):
        read_file(str(tmp_path / "none.jpg"))
    with pytest.raises(DataError, match="image must be readable, got: Is a directory"):
        read_file(str(tmp_path))
    with pytest.raises(DataError, match="image must be readable, got: embedded null byte"):
        read_file("a\0b")
