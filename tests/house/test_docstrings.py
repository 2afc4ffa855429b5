"""Every module says what it is; every public class and function says what it does.

So does every public method, unless its class has a base, where the base's docstring is the manual.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.source_tree import Function, Source, parse
from tests.house.verdict import expect_none

# Bases that define no methods for others to override.
PLAIN_BASES = ("ABC", "Enum", "Exception", "Generic", "NamedTuple", "Protocol")


def find_silent(source: Source) -> list[str]:
    """Return a sentence for everything public that has no docstring."""
    problems = []
    if ast.get_docstring(source.tree) is None:
        problems.append(
            f"{source.where(1)}: a module must open with a docstring; say what it is and where it stands"
        )
    problems += [
        f"{source.where(node.lineno)}: {node.name} must have a docstring, since it is public; "
        "say in one sentence what it does, or put an underscore in front of its name"
        for node in _public(source.tree)
        if ast.get_docstring(node) is None
    ]
    return problems


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | Function]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if not _is_again(node):
            yield node
        if isinstance(node, ast.ClassDef) and all(_base_name(base) in PLAIN_BASES for base in node.bases):
            yield from _public(node)


def _base_name(base: ast.expr) -> str:
    """Return Generic for typing.Generic[T]."""
    return ast.unparse(base).partition("[")[0].rpartition(".")[2]


def _is_again(node: ast.ClassDef | Function) -> bool:
    """Return whether this is a property's setter or an overload, whose docstring stands elsewhere."""
    return any(ast.unparse(mark).endswith((".setter", "overload")) for mark in node.decorator_list)


def test_docstrings_of_every_module_are_there(sources: list[Source]) -> None:
    expect_none(problem for source in sources for problem in find_silent(source))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [1]),
        ('"""Doc."""\ndef f(): ...', [2]),
        ('"""Doc."""\nasync def f(): ...', [2]),
        ('"""Doc."""\ndef _f(): ...', []),
        ('"""Doc."""\nclass A: ...', [2]),
        ('"""Doc."""\nclass A:\n    """Doc."""\n    def f(self): ...\n    def __len__(self): ...', [4]),
        ('"""Doc."""\nclass A(abc.ABC):\n    """Doc."""\n    def f(self): ...', [4]),
        ('"""Doc."""\nclass A(Base):\n    """Doc."""\n    def f(self): ...', []),
        ('"""Doc."""\nclass A:\n    """Doc."""\n    @x.setter\n    def x(self, x): ...', []),
    ],
)
def test_find_silent_of_an_example_names_each(text: str, lines: list[int]) -> None:
    places = [problem.split(": ")[0] for problem in find_silent(parse("core/net.py", text))]
    assert places == [f"core/net.py:{line}" for line in lines]
