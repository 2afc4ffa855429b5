"""Where the elements of an upgraded net stood in its file: lines follow the fields that are moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dtrain.core.prototxt import Path


def move_lines(lines: Mapping[Path, int], move: Callable[[Path], Path | None]) -> dict[Path, int]:
    """Return `lines` with each path replaced by what `move` makes of it, and left out where that is None.

    Of several elements that come to one place the first line stays, and a message that the file does not have
    gets the first line of what is moved into it.
    """
    moved: dict[Path, int] = {}
    for old, line in lines.items():
        new = move(old)
        if new is not None:
            moved[new] = min(line, moved.get(new, line))
    new_messages: dict[Path, int] = {}
    for path, line in moved.items():
        for length in range(2, len(path)):
            around = path[:length]
            if around not in moved and isinstance(path[length], str):
                new_messages[around] = min(line, new_messages.get(around, line))
    return moved | new_messages


def move_layers(
    lines: Mapping[Path, int], list_name: str, move: Callable[[int, Path], Path | None]
) -> dict[Path, int]:
    """Move the lines of the layers in the repeated field `list_name`, and keep all others.

    move: (index of the layer, path inside it) → the new path from the net on, or None.
    """

    def move_path(path: Path) -> Path | None:
        if len(path) > 1 and path[0] == list_name and isinstance(path[1], int):
            return move(path[1], path[2:])
        return path

    return move_lines(lines, move_path)
