"""The repository as the house rules see it: the text and the syntax tree of every module, by its path."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_FOLDERS = ("core", "data", "dist", "launcher", "dtrain")
TEST_FOLDERS = ("tests",)
GENERATED = ("dtrain/proto/caffe_pb2.py",)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)  # each is its own key in a cache
class Source:
    """One module: its path from the root, such as core/net.py, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether this is a package's __init__.py."""
        return self.path.endswith("/__init__.py")

    @property
    def module(self) -> str:
        """The name it is imported by: dtrain.core.net for core/net.py."""
        names = self.path.removesuffix("/__init__.py").removesuffix(".py").split("/")
        return ".".join(names if names[0] in ("dtrain", "tests") else ["dtrain", *names])

    @property
    def functions(self) -> Iterator[Function]:
        """Every function and method, also nested ones."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def where(self, line: int) -> str:
        """Return the place that a problem's sentence starts with."""
        return f"{self.path}:{line}"


def parse(path: str, text: str) -> Source:
    """Return the module with this text as if it lay at `path`."""
    return Source(path, text, ast.parse(text, filename=path))


def read_sources(folders: tuple[str, ...] = SOURCE_FOLDERS, root: Path = ROOT) -> list[Source]:
    """Return every module below `folders`; links are not followed, generated code is left out."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    relative = [path.relative_to(root).as_posix() for path in paths]
    return [
        parse(name, (root / name).read_text(encoding="utf-8")) for name in relative if name not in GENERATED
    ]
