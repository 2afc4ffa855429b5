"""An optional dependency is imported by one module; other modules import that one inside a function.

So dtrain runs without what is not installed, and no other import stands inside a function.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.house.imports import OPTIONAL_PACKAGES, homes_of_optional, read_imports, resolve
from tests.house.source_tree import Source, parse
from tests.house.verdict import expect_none

Rule = Callable[[list[Source]], list[str]]


def find_scattered(sources: list[Source]) -> list[str]:
    """Return a sentence for each optional package that several modules import."""
    return [
        f"{package} must be imported by one module, got {', '.join(modules)}; let one serve the others"
        for package, modules in homes_of_optional(sources).items()
        if len(modules) > 1
    ]


def find_hidden_imports(sources: list[Source]) -> list[str]:
    """Return a sentence for each import inside a function that no optional dependency asks for."""
    homes = _homes(sources)
    modules = {source.module for source in sources}
    return [
        f"{source.where(found.line)}: {found.name} must be imported at the top of the module; "
        f"only optional packages ({', '.join(OPTIONAL_PACKAGES)}) and the modules that import them may wait"
        for source in sources
        for found in read_imports(source)
        if found.in_function
        and found.package not in OPTIONAL_PACKAGES
        and resolve(found.name, modules) not in homes
    ]


def find_forced_imports(sources: list[Source]) -> list[str]:
    """Return a sentence for each import at the top that fails where an optional package is missing."""
    eager = {source.module for source in sources if _needs_optional(source)}
    modules = {source.module for source in sources}
    return [
        f"{source.where(found.line)}: {found.name} must be imported inside a function, "
        "since its module needs an optional package"
        for source in sources
        for found in read_imports(source)
        if not found.in_function and not found.for_typing and resolve(found.name, modules) in eager
    ]


def _homes(sources: list[Source]) -> set[str]:
    return {module for modules in homes_of_optional(sources).values() for module in modules}


def _needs_optional(source: Source) -> bool:
    return any(
        found.package in OPTIONAL_PACKAGES and not found.in_function and not found.for_typing
        for found in read_imports(source)
    )


@pytest.mark.parametrize("rule", [find_scattered, find_hidden_imports, find_forced_imports])
def test_optional_dependencies_of_dtrain_follow_the_rule(rule: Rule, sources: list[Source]) -> None:
    expect_none(rule(sources))


MPI = parse("dist/mpi.py", "from mpi4py import MPI")


def test_find_scattered_of_two_modules_names_both() -> None:
    problems = find_scattered([MPI, parse("launcher/main.py", "def f():\n    import mpi4py")])
    assert len(problems) == 1
    assert "dtrain.dist.mpi, dtrain.launcher.main" in problems[0]
    assert find_scattered([MPI]) == []


@pytest.mark.parametrize(
    ("text", "num_problems"),
    [
        ("def f():\n    import json", 1),
        ("class A:\n    def f(self):\n        from dtrain.core.net import Net", 1),
        ("def f():\n    from dtrain.dist.mpi import Mpi", 0),
        ("def f():\n    import sklearn.datasets", 0),
        ("import json", 0),
    ],
)
def test_find_hidden_imports_of_an_example_names_each(text: str, num_problems: int) -> None:
    assert len(find_hidden_imports([MPI, parse("dist/create.py", text)])) == num_problems


@pytest.mark.parametrize(
    ("text", "num_problems"),
    [
        ("from dtrain.dist.mpi import Mpi", 1),
        ("from . import mpi", 1),
        ("def f():\n    from dtrain.dist import mpi", 0),
        ("from dtrain.dist import single", 0),
    ],
)
def test_find_forced_imports_of_an_example_names_each(text: str, num_problems: int) -> None:
    assert len(find_forced_imports([MPI, parse("dist/create.py", text)])) == num_problems
