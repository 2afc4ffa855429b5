"""Tests mirror the sources name for name: core/graph.py is tested by tests/core/test_graph.py."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection
from pathlib import PurePosixPath

import pytest

from tests.house.source_tree import Function, Source, parse
from tests.house.verdict import expect_none


def registered_names(source: Source) -> set[str]:
    """Return, in quotes, the names that a module registers, as by @LAYERS.register("ReLU")."""
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call) and node.args]
    names = [call.args[0] for call in calls if ast.unparse(call.func).endswith(".register")]
    return {f'"{name.value!s}"' for name in names if isinstance(name, ast.Constant)}


def imported_specs(source: Source) -> set[str]:
    """Return the names of the operations (ConvolutionSpec …) that a module of an engine carries out."""
    nodes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes for alias in node.names if alias.name.endswith("Spec")}


# Packages whose members are entries of a registry, tested by tables. A member needs no test file of its own
# if the tests of its package name all its entries, which the function finds.
TABLE_TESTED: dict[str, Callable[[Source], set[str]]] = {
    "core/layers": registered_names,
    "core/solver/update_rules": registered_names,
    "core/engines/reference": imported_specs,
}


def mirror_of(source: Source) -> str:
    """Return where a module's tests belong; those of a package's __init__.py are called test_init.py."""
    path = PurePosixPath(source.path)
    return str(PurePosixPath("tests") / path.parent / f"test_{path.stem.strip('_')}.py")


def runs_code(source: Source) -> bool:
    """Return whether a function of the module is more than a declaration; tables and facades need no test."""
    return any(not _is_declaration(function) for function in source.functions)


def _is_declaration(function: Function) -> bool:
    marks = [ast.unparse(mark) for mark in function.decorator_list]
    only_documented = all(
        isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) for step in function.body
    )
    return only_documented or any(mark.endswith(("abstractmethod", "overload")) for mark in marks)


def find_untested(sources: Collection[Source], tests: Collection[Source]) -> list[str]:
    """Return a sentence for each module without a test file or, in a registry's package, a table's row."""
    texts = {test.path: test.text for test in tests}
    wanting = [source for source in sources if runs_code(source) and mirror_of(source) not in texts]
    return [problem for source in wanting for problem in _missing(source, texts)]


def _entries(source: Source) -> set[str]:
    package = str(PurePosixPath(source.path).parent)
    return TABLE_TESTED[package](source) if package in TABLE_TESTED else set()


def _missing(source: Source, texts: dict[str, str]) -> list[str]:
    package = str(PurePosixPath(source.path).parent)
    names = _entries(source)
    if not names:
        return [
            f"{source.where(1)}: a module must be tested by the file of its name; write {mirror_of(source)}"
        ]
    tables = [text for path, text in texts.items() if path.startswith(f"tests/{package}/")]
    return [
        f"{source.where(1)}: {name} must be named by a test in tests/{package}/; add a row there"
        for name in sorted(names)
        if not any(name in text for text in tables)
    ]


def test_mirror_of_every_module_is_a_test(sources: list[Source], test_sources: list[Source]) -> None:
    expect_none(find_untested(sources, test_sources))


def test_table_tested_packages_are_there_and_have_entries(sources: list[Source]) -> None:
    packages = {str(PurePosixPath(source.path).parent) for source in sources if _entries(source)}
    assert packages >= set(TABLE_TESTED)


RELU = '@LAYERS.register("ReLU")\nclass ReLU(Layer):\n    def forward(self): return 1'


@pytest.mark.parametrize(
    ("path", "text", "tests", "num_problems"),
    [
        ("core/net.py", "def f(): return 1", {}, 1),
        ("core/net.py", "def f(): return 1", {"tests/core/test_graph.py": ""}, 1),
        ("core/net.py", "def f(): return 1", {"tests/core/test_net.py": ""}, 0),
        ("core/net.py", "TABLE = {}", {}, 0),
        ("core/net.py", "class A(ABC):\n    @abstractmethod\n    def f(self): return 1", {}, 0),
        ("core/net.py", "class A(Protocol):\n    def f(self):\n        '''Do.'''", {}, 0),
        ("dtrain/__init__.py", "def __getattr__(name): return 1", {}, 1),
        ("dtrain/__init__.py", "def __getattr__(name): return 1", {"tests/dtrain/test_init.py": ""}, 0),
        ("core/layers/relu.py", RELU, {}, 1),
        ("core/layers/relu.py", RELU, {"tests/core/layers/test_neurons.py": 'ROWS = ["ReLU"]'}, 0),
        ("core/layers/relu.py", RELU, {"tests/core/layers/test_neurons.py": 'ROWS = ["PReLU"]'}, 1),
        ("core/layers/relu.py", RELU, {"tests/core/layers/test_relu.py": ""}, 0),
        ("core/layers/layer.py", "def f(): return 1", {"tests/core/layers/test_relu.py": ""}, 1),
    ],
)
def test_find_untested_of_an_example_names_each(
    path: str, text: str, tests: dict[str, str], num_problems: int
) -> None:
    found = find_untested([parse(path, text)], [parse(name, body) for name, body in tests.items()])
    assert len(found) == num_problems


def test_imported_specs_of_an_engine_module_are_its_operations() -> None:
    text = "from dtrain.core.engines.operations import LrnSpec, Shape"
    assert imported_specs(parse("core/engines/reference/lrn.py", text)) == {"LrnSpec"}
