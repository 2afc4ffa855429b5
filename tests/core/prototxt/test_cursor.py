from __future__ import annotations

import pytest

from dtrain.core.prototxt.cursor import Cursor
from dtrain.core.prototxt.tokens import Kind, tokenize


@pytest.mark.parametrize(
    "value",
    [
        ": 3",
        ': "a" "b"',
        ": word",
        "{ a: 1 b { c: 2 } }",
        ": < a: { b: 1 } >",
        ": [1, 2, 3]",
        ": [{ a: 1 }, { }]",
        "",
    ],
)
def test_skip_value_stops_at_the_next_field(value: str) -> None:
    cursor = Cursor(tokenize(f"unknown{value}\nnext: 1"))
    name = cursor.take()
    cursor.skip_value(name.line)
    assert cursor.token.text == "next"


def test_skip_value_of_an_unclosed_block_stops_at_the_end() -> None:
    cursor = Cursor(tokenize("{ a: 1 { b: 2 }"))
    cursor.skip_value(1)
    assert cursor.token.kind is Kind.END


def test_skip_value_of_an_unclosed_list_stops_at_the_next_field() -> None:
    cursor = Cursor(tokenize(": [1, {a: 1}, 2\nnext: 1"))
    cursor.skip_value(1)
    assert cursor.token.text == "next"


def test_skip_line_steps_over_a_whole_block_and_stops_at_a_closer() -> None:
    cursor = Cursor(tokenize("= 3 {\n a: 1 }\n} next"))
    cursor.skip_line()
    assert (cursor.token.text, cursor.token.line) == ("}", 3)


@pytest.mark.parametrize(
    ("text", "is_field"), [("a: 1", True), ("a {", True), ("a <", True), ("a b", False), ("{", False)]
)
def test_begins_a_field_looks_at_two_tokens(text: str, is_field: bool) -> None:
    assert Cursor(tokenize(text)).begins_a_field() is is_field


def test_take_at_the_end_stays_there() -> None:
    cursor = Cursor(tokenize(""))
    assert cursor.take().kind is Kind.END
    assert cursor.take().kind is Kind.END
