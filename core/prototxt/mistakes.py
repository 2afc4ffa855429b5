"""Collect the mistakes of a prototxt while it is read; word them once the names of its layers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from dtrain.core.errors import UserError
from dtrain.core.prototxt.document import Path
from dtrain.proto import caffe_pb2

_NOUNS = {"NetParameter": "a net", "SolverParameter": "a solver"}


@dataclass(frozen=True)
class _Mistake:
    line: int
    path: Path
    predicate: str
    is_slip: bool = False


class Mistakes:
    """Collect mistakes with their lines and elements.

    A slip in the writing itself (a quote, a brace, a colon) makes the rest of its line doubtful: what is
    noted later on that line is dropped.

    Arguments:
        file: the file's name, for the beginning of each line.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: dict[_Mistake, None] = {}  # in their order; a list would be slow to search
        self._doubtful_lines: set[int] = set()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int, path: Path, predicate: str) -> None:
        """Note a mistake, as a sentence without its subject: the element at ``path`` "must be …, got …"."""
        self._add(_Mistake(line, path, predicate))

    def add_slip(self, line: int, path: Path, predicate: str) -> None:
        """Note a mistake in the writing, after which nothing else on its line is noted."""
        self._add(_Mistake(line, path, predicate, is_slip=True))
        self._doubtful_lines.add(line)

    def _add(self, mistake: _Mistake) -> None:
        if mistake.line not in self._doubtful_lines and mistake not in self._found:
            self._found[mistake] = None

    def withdraw_since(self, count: int) -> None:
        """Forget all but the first ``count`` mistakes: a later one turned out to be their cause."""
        while len(self._found) > count:
            mistake, _ = self._found.popitem()
            if mistake.is_slip:  # the only one on its line
                self._doubtful_lines.discard(mistake.line)

    def raise_if_any(self, message: Message) -> None:
        """Raise a UserError with all mistakes in the order of their lines; return when there are none.

        Arguments:
            message: what was read so far; the layers' names are taken from it.
        """
        if not self._found:
            return
        in_order = sorted(self._found, key=lambda mistake: mistake.line)
        raise UserError(
            *(
                f"{self._file}:{found.line}: {_subject(message, found.path)} {found.predicate}"
                for found in in_order
            )
        )


def noun(message_type: type[Message]) -> str:
    """Name what a file of this message describes: "a net", "a solver", else the message's own name."""
    name = message_type.DESCRIPTOR.name
    return _NOUNS.get(name, name)


def _subject(message: Message, path: Path) -> str:
    """Name an element: ``layer "conv1": convolution_param.pad``, ``test_iter``, or "a net" for all of it."""
    if not path:
        return noun(type(message))
    name, inside = _innermost_layer(message, path)
    dotted = ".".join(step for step in inside if isinstance(step, str))
    if not name:
        return dotted
    return f'layer "{name}": {dotted}' if dotted else f'layer "{name}"'


def _innermost_layer(message: Message, path: Path) -> tuple[str, Path]:
    """Return the name of the last layer on a path that has one, and the rest of the path after it."""
    name, inside = "", path
    element: Any = message
    for position, step in enumerate(path, start=1):
        if isinstance(step, int) and (isinstance(element, Message) or step >= len(element)):
            break  # the second block where one may be, or an element too faulty to be added
        element = element[step] if isinstance(step, int) else getattr(element, step)
        own_name = _name_of_layer(element)
        if own_name:
            name, inside = own_name, path[position:]
    return name, inside


def _name_of_layer(element: object) -> str:
    """Return a layer's name, "" for all else; V1 layers may hold a V0 layer that has the name."""
    if isinstance(element, caffe_pb2.V1LayerParameter):
        return element.name or element.layer.name
    if isinstance(element, caffe_pb2.LayerParameter | caffe_pb2.V0LayerParameter):
        return element.name
    return ""
