"""Cut protobuf text format into tokens, each with its line: the first step from a prototxt to messages."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """Tell tokens apart by their shape; what a word means is decided where its field is known."""

    WORD = "word"  # a name or a number, also a malformed one such as 20x
    STRING = "string"  # with its quotes
    BROKEN_STRING = "broken string"  # the rest of a line after a quote that has no partner
    SYMBOL = "symbol"  # one character
    END = "end"


class Token(NamedTuple):
    """Hold a piece of text and the line (from 1) where it starts."""

    kind: Kind
    text: str
    line: int


_PATTERN = re.compile(
    r"""
      (?P<newline>\n)
    | (?P<blank>[^\S\n]+ | \#[^\n]*)
    | (?P<word>(?:-[ \t]*)?[A-Za-z0-9_.](?:[A-Za-z0-9_.]|(?<=[eE])[+-])*)
    | (?P<string>"(?:[^"\\\n]|\\[^\n])*" | '(?:[^'\\\n]|\\[^\n])*')
    | (?P<broken>["'](?:[ \t\r;,}>]*[^ \t\r;,}>\n]+)*)
    | (?P<symbol>.)
    """,
    re.VERBOSE,
)

_KIND_OF_GROUP = {
    "word": Kind.WORD,
    "string": Kind.STRING,
    "broken": Kind.BROKEN_STRING,
    "symbol": Kind.SYMBOL,
}


def tokenize(text: str) -> list[Token]:
    """Cut a text into tokens; white space and comments are left out, and the last token is always END.

    Nothing is refused here: a quote without a partner becomes a BROKEN_STRING that leaves closing braces at
    the end of its line alone, so that one slip does not unbalance the rest of the file.
    """
    tokens: list[Token] = []
    line = 1
    for match in _PATTERN.finditer(text):
        group = match.lastgroup
        if group == "newline":
            line += 1
        elif group in _KIND_OF_GROUP:
            tokens.append(Token(_KIND_OF_GROUP[group], match.group(), line))
    tokens.append(Token(Kind.END, "the end of the file", line))
    return tokens
