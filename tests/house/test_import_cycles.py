"""No module imports itself by way of others, so that each can be read, tested and imported alone."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house.imports import read_imports, resolve
from tests.house.source_tree import Source, parse


def find_cycle(sources: list[Source]) -> list[str]:
    """Return the modules of one import cycle, first and last the same; nothing if there is none."""
    modules = {source.module for source in sources}
    graph = {source.module: _targets(source, modules) for source in sources}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # graphlib names the imported one first
    return []


def _targets(source: Source, modules: set[str]) -> set[str]:
    found = [resolve(each.name, modules) for each in read_imports(source) if not each.for_typing]
    return {target for target in found if target is not None and target != source.module}


def test_import_cycles_in_dtrain_there_are_none(sources: list[Source]) -> None:
    cycle = find_cycle(sources)
    assert not cycle, f"modules must not import each other in a circle, got {' → '.join(cycle)}; split one"


@pytest.mark.parametrize(
    ("statements", "cycle"),
    [
        ({"core/a.py": "import dtrain.core.b", "core/b.py": ""}, set()),
        ({"core/a.py": "from dtrain.core import b", "core/b.py": "from .a import A"}, {"a", "b"}),
        ({"core/a.py": "from .b import B", "core/b.py": "def f():\n    from .a import A"}, {"a", "b"}),
        (
            {"core/a.py": "from . import b", "core/b.py": "from . import c", "core/c.py": "from . import a"},
            set("abc"),
        ),
        ({"core/a.py": "from . import b", "core/b.py": "if TYPE_CHECKING:\n    from .a import A"}, set()),
    ],
)
def test_find_cycle_of_an_example_names_its_modules(statements: dict[str, str], cycle: set[str]) -> None:
    found = find_cycle([parse(path, text) for path, text in statements.items()])
    assert {module.removeprefix("dtrain.core.") for module in found} == cycle


def test_find_cycle_reads_in_the_direction_of_imports() -> None:
    statements = {
        "core/a.py": "from . import b",
        "core/b.py": "from . import c",
        "core/c.py": "from . import a",
    }
    found = find_cycle([parse(path, text) for path, text in statements.items()])
    pairs = {(before[-1], after[-1]) for before, after in zip(found, found[1:], strict=False)}
    assert pairs == {("a", "b"), ("b", "c"), ("c", "a")}
