"""Registries: one visible table for each kind of thing that a prototxt names (layers, fillers, policies …).

A package that holds the members of a registry is imported whole by `import_members`, so that adding a member
is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from dtrain.core.errors import UserError
from dtrain.core.names import nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from names to members of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._members: dict[str, T] = {}
        self._modules: dict[str, str] = {}  # that register a member when they are imported, by its name

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its member under `name`; entering a name twice is a bug."""

        def enter(member: T) -> T:
            assert name not in self._members, f"{self.kind} {name!r} is registered twice"
            self._members[name] = member
            return member

        return enter

    def register_module(self, name: str, module: str) -> None:
        """Enter the module that registers the member called `name`; it is imported when that is first asked for."""
        self._modules[name] = module

    def __getitem__(self, name: str) -> T:
        """Return the member called `name`; raise UserError that names the nearest and the known ones."""
        if name not in self._members and name in self._modules:
            importlib.import_module(self._modules[name])
        if name not in self._members:
            hint = nearest(name, list(self))
            known = ", ".join(self)
            raise UserError(f'unknown {self.kind} "{name}"{"; " + hint if hint else ""}; known: {known}')
        return self._members[name]

    def __contains__(self, name: str) -> bool:
        return name in self._members or name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._members, *self._modules}))


def import_members(package: str, path: list[str]) -> None:
    """Import every module of `package`, so that its members register."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
