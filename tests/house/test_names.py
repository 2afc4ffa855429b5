"""Modules are named for what they are, and every folder of sources is a package, else wheels leave it out."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tests.house.source_tree import Source, parse
from tests.house.verdict import expect_none

EMPTY_WORDS = {"common", "helper", "helpers", "misc", "util", "utils"}


def find_empty_names(source: Source) -> list[str]:
    """Return a sentence for each part of the path that says nothing about what is inside."""
    parts = PurePosixPath(source.path).with_suffix("").parts
    return [
        f"{source.where(1)}: a module's name must say what is inside, got {part}; call it after what it holds"
        for part in parts
        if EMPTY_WORDS.intersection(part.split("_"))
    ]


def find_unpackaged(sources: list[Source]) -> list[str]:
    """Return a sentence for each folder that has modules, or folders of modules, but no __init__.py."""
    paths = [PurePosixPath(source.path) for source in sources]
    folders = {folder for path in paths for folder in path.parents if folder.name}
    return [
        f"{folder}: a folder of sources must have an __init__.py, else wheels leave it out; add one"
        for folder in sorted(folders)
        if folder / "__init__.py" not in paths
    ]


def test_names_of_every_module_say_what_is_inside(sources: list[Source], test_sources: list[Source]) -> None:
    expect_none(problem for source in [*sources, *test_sources] for problem in find_empty_names(source))


def test_folders_of_sources_are_packages(sources: list[Source]) -> None:
    expect_none(find_unpackaged(sources))


@pytest.mark.parametrize(
    ("path", "num_problems"),
    [
        ("core/utils.py", 1),
        ("core/layer_utils.py", 1),
        ("data/common/misc.py", 2),
        ("tests/core/test_helpers.py", 1),
        ("core/commons.py", 0),
        ("core/net.py", 0),
    ],
)
def test_find_empty_names_of_an_example_names_each(path: str, num_problems: int) -> None:
    assert len(find_empty_names(parse(path, ""))) == num_problems


def test_find_unpackaged_of_folders_without_init_names_each() -> None:
    paths = ["core/__init__.py", "core/net.py", "core/engines/reference/lrn.py"]
    problems = find_unpackaged([parse(path, "") for path in paths])
    assert [problem.split(":")[0] for problem in problems] == ["core/engines", "core/engines/reference"]
