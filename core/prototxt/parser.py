"""Build a message from the tokens of a prototxt, noting every mistake and going on after each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from dtrain.core.prototxt.braces import Braces
from dtrain.core.prototxt.cursor import CLOSERS, OPENERS, Cursor
from dtrain.core.prototxt.document import Path
from dtrain.core.prototxt.literals import LiteralError, convert, shown
from dtrain.core.prototxt.mistakes import Mistakes
from dtrain.core.prototxt.schema import Field, Schema, ValueKind, schema_of
from dtrain.core.prototxt.tokens import Kind, Token
from dtrain.core.prototxt.unknown import unknown_field

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class _Element:
    """Hold a message being read; ``opener`` is the { or < that began it, None for the file itself."""

    message: Message
    schema: Schema
    path: Path
    opener: Token | None


class Parser:
    """Read tokens into a message, by recursive descent over its descriptor.

    After ``read``, ``lines`` has the line of each element by its path, and ``outer_names`` the names of the
    fields that stand outside of all braces, known or not.

    Arguments:
        tokens: the file, as tokens.tokenize makes them.
        mistakes: takes what is wrong.
    """

    def __init__(self, tokens: Sequence[Token], mistakes: Mistakes) -> None:
        self.lines: dict[Path, int] = {}
        self.outer_names: set[str] = set()
        self._cursor = Cursor(tokens)
        self._mistakes = mistakes
        self._around: list[Schema] = []
        self._note_open_quotes(tokens)
        self._braces = Braces(tokens, mistakes)

    def read(self, message: Message) -> None:
        """Fill a message from all tokens."""
        self._read_fields(_Element(message, schema_of(message.DESCRIPTOR), (), None))

    def _note_open_quotes(self, tokens: Sequence[Token]) -> None:
        # First of all, since a forgotten quote turns inside out what stands in its line.
        for token in tokens:
            if token.kind is Kind.BROKEN_STRING:
                predicate = f"must close each {token.text[0]} in its own line, got {shown([token])}"
                self._mistakes.add_slip(token.line, (), predicate)

    def _read_fields(self, element: _Element) -> None:
        while not self._ends(element):
            token = self._cursor.token
            if token.text in (",", ";"):
                self._cursor.take()
            elif token.text in CLOSERS:  # the file itself has none
                self._braces.note_surplus(self._cursor.take())
            elif token.kind is not Kind.WORD or not _NAME.fullmatch(token.text):
                self._skip_stray(element)
            elif token.text in element.schema.fields:
                self._read_field(element, element.schema.fields[token.text])
            elif element.opener and self._braces.lacks_closer(
                element.path, element.opener, self._around, token
            ):
                return
            else:
                self._skip_unknown(element)

    def _ends(self, element: _Element) -> bool:
        """Tell whether the element ends here, and take its closer."""
        token, opener = self._cursor.token, element.opener
        if token.kind is Kind.END:
            if opener is not None:
                self._braces.note_end_inside(element.path, opener)
            return True
        if token.text not in CLOSERS or opener is None:
            return False
        self._cursor.take()
        for name in element.schema.required:
            if (*element.path, name) not in self.lines:
                self._mistakes.add(opener.line, element.path, f'needs the field "{name}"')
        self._braces.close(element.path, opener, token)
        return True

    def _skip_unknown(self, element: _Element) -> None:
        name = self._cursor.take()
        self._mistakes.add(name.line, element.path, unknown_field(name.text, element.schema))
        if element.opener is None:
            self.outer_names.add(name.text)
        self._cursor.skip_value(name.line)

    def _skip_stray(self, element: _Element) -> None:
        token = self._cursor.token
        fix = "; comments begin with #" if token.text == "/" else ""
        predicate = f"must have a field's name here, got {shown([token])}{fix}"
        self._mistakes.add_slip(token.line, element.path, predicate)
        self._cursor.skip_line()

    def _read_field(self, element: _Element, field: Field) -> None:
        name = self._cursor.take()
        if element.opener is None:
            self.outer_names.add(field.name)
        has_colon = self._cursor.accept(":")
        if self._cursor.token.text == "[" and not field.is_repeated:
            path = (*element.path, field.name)
            self._mistakes.add(name.line, path, f"must be {field.kind.value}, got a list")
            self._cursor.skip_value(name.line)
        elif self._cursor.accept("["):
            self._read_list(element, field)
        elif field.kind is ValueKind.MESSAGE:
            self._read_block(element, field, name)
        else:
            self._read_scalar(element, field, name, has_colon)

    def _read_list(self, element: _Element, field: Field) -> None:
        if self._cursor.accept("]"):
            return
        num_mistakes = len(self._mistakes)
        self._read_item(element, field)
        while self._cursor.accept(","):
            self._read_item(element, field)
        is_closed = self._cursor.accept("]")
        if not is_closed and len(self._mistakes) == num_mistakes:
            token = self._cursor.token
            predicate = f"must go on with , or ], got {shown([token])}"
            self._mistakes.add_slip(token.line, (*element.path, field.name), predicate)
            self._cursor.skip_line()

    def _read_item(self, element: _Element, field: Field) -> None:
        first = self._cursor.token
        if field.kind is ValueKind.MESSAGE:
            self._read_block(element, field, first)
        else:
            self._read_scalar(element, field, first, has_colon=True)

    def _place(self, element: _Element, field: Field, line: int) -> tuple[Path, bool]:
        """Note where an element stands; return its path, and whether it is the second where one may be."""
        path: Path = (*element.path, field.name)
        if field.is_repeated:
            path = (*path, len(getattr(element.message, field.name)))
        elif path in self.lines:
            self._mistakes.add(line, path, f"is given twice, first in line {self.lines[path]}")
            return path, True
        self.lines[path] = line
        return path, False

    def _read_block(self, element: _Element, field: Field, name: Token) -> None:
        path, is_second = self._place(element, field, name.line)
        # Without an opener nothing is added, so its index would name the next one.
        opener = self._take_opener(path[:-1] if field.is_repeated else path, name)
        if opener is None:
            return
        if is_second:
            path = (*path, 1)  # its fields are not those of the first one
        values: Any = getattr(element.message, field.name)
        message = values.add() if field.is_repeated else type(values)() if is_second else values
        message.SetInParent()
        assert field.message is not None, f"{field.name} holds messages"
        self._around.append(element.schema)
        self._read_fields(_Element(message, schema_of(field.message, field.container), path, opener))
        self._around.pop()

    def _take_opener(self, path: Path, name: Token) -> Token | None:
        if self._cursor.token.text in OPENERS:
            return self._cursor.take()
        got = self._take_value(name, may_be_in_next_line=False)
        if got:
            self._mistakes.add(name.line, path, f"must be {ValueKind.MESSAGE.value}, got {shown(got)}")
            return None
        self._mistakes.add_slip(name.line, path, "needs a { after its name")
        return name if self._braces.lacks_opener() else None

    def _read_scalar(self, element: _Element, field: Field, name: Token, has_colon: bool) -> None:
        path, is_second = self._place(element, field, name.line)
        if self._cursor.token.text in OPENERS:
            self._mistakes.add(name.line, path, f"must be {field.kind.value}, got {ValueKind.MESSAGE.value}")
            self._cursor.skip_value(name.line)
            return
        has_other_sign = self._cursor.accept("=")
        tokens = self._take_value(name, may_be_in_next_line=has_colon)
        if not tokens:
            self._mistakes.add_slip(name.line, path, f"needs a value: {field.kind.value}")
            return
        if not has_colon or has_other_sign:
            self._mistakes.add_slip(name.line, path, f"needs a colon: {field.name}: {shown(tokens)}")
        if not is_second:
            self._store(element.message, field, path, tokens)

    def _take_value(self, name: Token, may_be_in_next_line: bool) -> list[Token]:
        """Take the tokens of one value; none when there is a field or a symbol in its place."""
        token = self._cursor.token
        if token.kind is Kind.WORD:
            is_elsewhere = token.line != name.line and not may_be_in_next_line
            return [] if is_elsewhere or self._cursor.begins_a_field() else [self._cursor.take()]
        tokens = []
        while self._cursor.token.kind in (Kind.STRING, Kind.BROKEN_STRING):
            tokens.append(self._cursor.take())
        return tokens

    def _store(self, message: Message, field: Field, path: Path, tokens: Sequence[Token]) -> None:
        try:
            value = convert(field, tokens)
        except LiteralError as error:
            self._mistakes.add(tokens[0].line, path, str(error))
            return
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
