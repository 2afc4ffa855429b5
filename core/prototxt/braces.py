"""Find the brace that is missing in a prototxt, so that one forgotten brace is one mistake and not fifty."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.prototxt.cursor import CLOSERS, OPENERS
from dtrain.core.prototxt.document import Path
from dtrain.core.prototxt.mistakes import Mistakes
from dtrain.core.prototxt.schema import Schema
from dtrain.core.prototxt.tokens import Kind, Token


class Braces:
    """Follow the braces of a file while it is read.

    More openers than closers in the whole file tell a forgotten } from a field that stands in the wrong
    place, and fewer tell a forgotten { from a field of another kind.

    Arguments:
        tokens: the whole file.
        mistakes: takes what is wrong.
    """

    def __init__(self, tokens: Sequence[Token], mistakes: Mistakes) -> None:
        symbols = [token.text for token in tokens if token.kind is Kind.SYMBOL]
        self._num_missing_closers = sum((text in OPENERS) - (text in CLOSERS) for text in symbols)
        self._mistakes = mistakes
        self._num_mistakes_at_last_close = len(mistakes)
        self._last_close_line = 0

    def close(self, path: Path, opener: Token, closer: Token) -> None:
        """Note that an element ends, and the mistake if its closer is of the other kind."""
        expected = OPENERS.get(opener.text, closer.text)
        if closer.text != expected:
            self._mistakes.add_slip(closer.line, path, f"must end with {expected}, got {closer.text}")
        self._last_close_line = closer.line
        self._num_mistakes_at_last_close = len(self._mistakes)

    def note_end_inside(self, path: Path, opener: Token) -> None:
        """Note that the file ends inside an element."""
        self._mistakes.add(opener.line, path, f"opens a {opener.text} that is never closed")

    def note_surplus(self, closer: Token) -> None:
        """Note a closer outside of all elements.

        A block was closed too early, and the rest of it looked like fields of the file: the mistakes found
        there are withdrawn.
        """
        self._mistakes.withdraw_since(self._num_mistakes_at_last_close)
        before = (
            f"; the block before it ended in line {self._last_close_line}" if self._last_close_line else ""
        )
        self._mistakes.add_slip(closer.line, (), f"has a {closer.text} that closes nothing{before}")
        self._num_mistakes_at_last_close = len(self._mistakes)

    def lacks_closer(self, path: Path, opener: Token, around: Sequence[Schema], name: Token) -> bool:
        """Tell whether a closer was forgotten before a field that its element does not have, and note it.

        Arguments:
            path: the element.
            opener: its opener.
            around: the messages around it, outermost first.
            name: the field, which must then belong to one of them.
        """
        num_open = next((i for i, schema in enumerate(reversed(around), 1) if name.text in schema.fields), 0)
        if not 0 < num_open <= self._num_missing_closers:
            return False
        self._num_missing_closers -= 1
        self._mistakes.add(
            opener.line, path, f"opens a {opener.text} that is not closed before line {name.line}"
        )
        return True

    def lacks_opener(self) -> bool:
        """Tell whether an opener that is not there was forgotten, and take it as given from now on."""
        if self._num_missing_closers >= 0:
            return False
        self._num_missing_closers += 1
        return True
