"""Imports run one way: launcher → core, data, dist; core → data, dist; all of them → dtrain.proto."""

from __future__ import annotations

import pytest

from tests.house.imports import Import, read_imports
from tests.house.source_tree import Source, parse
from tests.house.verdict import expect_none

# What the modules of each part of dtrain may import of dtrain; the launcher and the front may import all.
ALLOWED_PARTS = {
    "core": ("core", "data", "dist", "proto"),
    "data": ("data", "proto"),
    "dist": ("dist", "proto"),
    "proto": ("proto",),
}
SOURCE_PACKAGES = ("core", "data", "dist", "launcher")


def _part(name: str) -> str:
    """Return core for dtrain.core.net; "" for dtrain's own front."""
    parts = name.split(".")
    return parts[1] if parts[0] == "dtrain" and len(parts) > 1 else ""


def find_wrong_directions(source: Source) -> list[str]:
    """Return a sentence for each import of a part of dtrain that the module's own part may not import."""
    own = _part(source.module)
    allowed = ALLOWED_PARTS.get(own)
    if allowed is None:
        return []
    return [
        f"{source.where(found.line)}: {own} must import only {', '.join(allowed)}, got {found.name}; "
        "move the code to the side that may, or pass it in as an argument"
        for found in read_imports(source)
        if found.package == "dtrain" and _part(found.name) not in allowed
    ]


def find_bare_imports(source: Source) -> list[str]:
    """Return a sentence for each import of core, data, dist or launcher without dtrain in front."""

    def sentence(found: Import) -> str:
        return (
            f"{source.where(found.line)}: {found.package} must be imported as dtrain.{found.package}, "
            f"got {found.name}; without dtrain it becomes a second module with registries of its own"
        )

    return [sentence(found) for found in read_imports(source) if found.package in SOURCE_PACKAGES]


def test_import_direction_of_every_module_is_one_way(sources: list[Source]) -> None:
    expect_none(problem for source in sources for problem in find_wrong_directions(source))


def test_import_of_source_folders_everywhere_has_dtrain_in_front(
    sources: list[Source], test_sources: list[Source]
) -> None:
    expect_none(problem for source in [*sources, *test_sources] for problem in find_bare_imports(source))


@pytest.mark.parametrize(
    ("path", "statement", "num_problems"),
    [
        ("data/sampler.py", "from dtrain.core.net import Net", 1),
        ("data/sampler.py", "from dtrain import core", 1),
        ("data/sampler.py", "from ..core import net", 1),
        ("data/sampler.py", "import dtrain", 1),
        ("data/sampler.py", "def f():\n    from dtrain.dist import single", 1),
        ("data/sampler.py", "from dtrain.proto import caffe_pb2\nfrom .datum import Datum", 0),
        ("dist/single.py", "import dtrain.data.datum", 1),
        ("dist/__init__.py", "from . import single", 0),
        ("core/solver.py", "import dtrain.launcher.main", 1),
        ("core/solver.py", "from dtrain.dist import communicator\nimport dtrain.data.datum", 0),
        ("dtrain/proto/__init__.py", "import dtrain.core.net", 1),
        ("launcher/main.py", "from dtrain import __version__, core", 0),
        ("dtrain/__main__.py", "from dtrain.launcher.main import main", 0),
    ],
)
def test_find_wrong_directions_of_an_example_names_each(path: str, statement: str, num_problems: int) -> None:
    problems = find_wrong_directions(parse(path, statement))
    assert len(problems) == num_problems
    assert all(problem.startswith(f"{path}:") for problem in problems)


@pytest.mark.parametrize(
    ("statement", "num_problems"),
    [
        ("import core", 1),
        ("import dist.single as single", 1),
        ("from data.datum import Datum", 1),
        ("def f():\n    from launcher import main", 1),
        ("import dtrain.core", 0),
        ("from . import core", 0),
    ],
)
def test_find_bare_imports_of_an_example_names_each(statement: str, num_problems: int) -> None:
    assert len(find_bare_imports(parse("dtrain/__init__.py", statement))) == num_problems
