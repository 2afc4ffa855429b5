"""A prototxt as read: the message, and the line of each element, so that later stages can say where.

The graph, the net and the solver check what the reader cannot (blobs, shapes, names of layer types); their
errors begin with ``Document.where``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

Path = tuple[str | int, ...]
"""Field names from the outermost message on, each repeated one followed by its index (from 0)."""


MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True)
class Document(Generic[MessageT]):
    """Hold a message with the place of its elements in a file.

    Arguments:
        message: what the file says, for example a NetParameter.
        path: the file, as the user named it.
        lines: line (from 1) of each element, by its path such as ``("layer", 3, "convolution_param")``.
    """

    message: MessageT
    path: str
    lines: Mapping[Path, int]

    def line(self, *path: str | int) -> int:
        """Return the line of an element, or of the nearest one around it that the file has; else 1."""
        return self._known_line(path) or 1

    def where(self, *path: str | int) -> str:
        """Return ``file:line`` of an element, for the beginning of an error.

        An element that the file does not have stands where the nearest one around it does; without any, the
        file alone is named. A repeated field's name without an index means its first element.

            >>> document.where("layer", 3, "convolution_param", "pad")
            'lenet.prototxt:41'
        """
        line = self._known_line(path)
        return f"{self.path}:{line}" if line else self.path

    def _known_line(self, path: Path) -> int | None:
        for length in range(len(path), 0, -1):
            around = path[:length]
            line = self.lines.get(around) or self.lines.get((*around, 0))
            if line:
                return line
        return None
