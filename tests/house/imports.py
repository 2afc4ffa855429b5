"""What a module imports, by name, line and place: the ground of the rules about imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.house.source_tree import Function, Source

OPTIONAL_PACKAGES = ("PIL", "cupy", "h5py", "matplotlib", "mpi4py", "plyvel", "simplejpeg", "sklearn")


@dataclass(frozen=True)
class Import:
    """One imported name, such as dtrain.core.net.Net, and where the statement stands."""

    name: str
    line: int
    in_function: bool = False
    for_typing: bool = False

    @property
    def package(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]


@cache
def read_imports(source: Source) -> list[Import]:
    """Return every import of a module, relative ones by their full names."""
    return list(_walk(source, source.tree, in_function=False, for_typing=False))


def _walk(source: Source, node: ast.AST, in_function: bool, for_typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):  # holds no statement
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            for name in _names(source, child):
                yield Import(name, child.lineno, in_function, for_typing)
        else:
            inside = in_function or isinstance(child, Function)
            yield from _walk(source, child, inside, for_typing or _is_for_typing(child))


def _names(source: Source, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = [node.module] if node.module else []
    if node.level:
        climbed = node.level - source.is_package
        parents = source.module.split(".")
        base = [*parents[: len(parents) - climbed], *base]
    return [".".join([*base, alias.name]) for alias in node.names]


def _is_for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def resolve(name: str, modules: set[str]) -> str | None:
    """Return the module among `modules` that `name` is, or is defined in; None if it is elsewhere."""
    parts = name.split(".")
    candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in modules), None)


def homes_of_optional(sources: list[Source]) -> dict[str, list[str]]:
    """Return for each optional package the modules that import it."""
    homes: dict[str, list[str]] = {}
    for source in sources:
        packages = {found.package for found in read_imports(source) if not found.for_typing}
        for package in sorted(packages.intersection(OPTIONAL_PACKAGES)):
            homes.setdefault(package, []).append(source.module)
    return homes
