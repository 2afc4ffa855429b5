"""A place in the tokens of a prototxt that moves forward, and knows how to step over what cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.prototxt.tokens import Kind, Token

OPENERS = {"{": "}", "<": ">"}
CLOSERS = frozenset(OPENERS.values())


class Cursor:
    """Walk over tokens; ``token`` is the one to be read next, at the end for ever END.

    Arguments:
        tokens: as tokens.tokenize makes them, END last.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self.token = tokens[0]

    def take(self) -> Token:
        """Return the token to be read next and go on to the one after it."""
        taken = self.token
        if taken.kind is not Kind.END:
            self._at += 1
            self.token = self._tokens[self._at]
        return taken

    def accept(self, symbol: str) -> bool:
        """Take the next token if it is this symbol; say whether it was."""
        if self.token.text != symbol:
            return False
        self.take()
        return True

    def begins_a_field(self) -> bool:
        """Tell whether the next token is a name with a colon or a brace after it."""
        if self.token.kind is not Kind.WORD:
            return False
        return self._tokens[self._at + 1].text in (":", *OPENERS)

    def skip_value(self, line: int) -> None:
        """Step over the value of an unknown field: a colon, and a block, a list, strings or a word.

        Arguments:
            line: where the field's name stands; without a colon, a word in another line is not its value.
        """
        has_colon = self.accept(":")
        if self.token.text in OPENERS:
            self._skip_block()
        elif self.token.text == "[":
            self._skip_list()
        elif self.token.kind is Kind.WORD:
            if (has_colon or self.token.line == line) and not self.begins_a_field():
                self.take()
        else:
            while self.token.kind in (Kind.STRING, Kind.BROKEN_STRING):
                self.take()

    def _skip_block(self) -> None:
        """Step over a block from its opener to the closer that belongs to it, or to the end of the file."""
        depth = 0
        while self.token.kind is not Kind.END:
            text = self.take().text
            depth += (text in OPENERS) - (text in CLOSERS)
            if depth == 0:
                return

    def _skip_list(self) -> None:
        """Step over a list; one without ] ends before the next field or closer."""
        while not self.accept("]"):
            if self.token.kind is Kind.END or self.token.text in CLOSERS or self.begins_a_field():
                return
            if self.token.text in OPENERS:
                self._skip_block()
            else:
                self.take()

    def skip_line(self) -> None:
        """Step over the rest of the line, with a whole block if one begins there, up to a closer."""
        line = self.token.line
        while self.token.line == line and self.token.kind is not Kind.END and self.token.text not in CLOSERS:
            if self.token.text in OPENERS:
                self._skip_block()
            else:
                self.take()
