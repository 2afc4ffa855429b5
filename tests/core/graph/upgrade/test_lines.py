"""Lines follow what is moved."""

from __future__ import annotations

from dtrain.core.graph.upgrade.lines import move_layers, move_lines
from dtrain.core.prototxt import Path


def test_move_lines_moves_drops_and_keeps_the_first_of_two() -> None:
    lines: dict[Path, int] = {("a",): 5, ("b",): 2, ("c",): 3, ("d",): 4}
    places: dict[str, Path | None] = {"a": ("x",), "b": ("x",), "c": None, "d": ("d",)}
    assert move_lines(lines, lambda path: places[str(path[0])]) == {("x",): 2, ("d",): 4}


def test_move_lines_gives_new_messages_the_first_line_of_what_is_in_them() -> None:
    lines: dict[Path, int] = {("layers", 0): 1, ("layers", 0, "pad"): 7, ("layers", 0, "stride"): 3}

    def move(path: Path) -> Path:
        return path if len(path) == 2 else (*path[:2], "param", path[2], 0)

    assert move_lines(lines, move) == {
        ("layers", 0): 1,
        ("layers", 0, "param"): 3,
        ("layers", 0, "param", "pad", 0): 7,
        ("layers", 0, "param", "stride", 0): 3,
    }


def test_move_layers_leaves_other_fields_alone() -> None:
    lines: dict[Path, int] = {("name",): 1, ("layers", 0): 2, ("layers", 1, "top", 0): 3, ("layer", 0): 4}

    def move(index: int, inside: Path) -> Path | None:
        return ("layers", index - 1, *inside) if index else None

    assert move_layers(lines, "layers", move) == {
        ("name",): 1,
        ("layers", 0): 3,
        ("layers", 0, "top", 0): 3,
        ("layer", 0): 4,
    }
