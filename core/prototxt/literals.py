"""Turn the tokens of one value into what a field of a message takes, or say why they cannot be that."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from dtrain.core.names import nearest
from dtrain.core.prototxt.ranges import Value
from dtrain.core.prototxt.schema import Field, ValueKind
from dtrain.core.prototxt.tokens import Kind, Token

_MAX_ENUM_NAMES_LISTED = 12
_MAX_SHOWN_LENGTH = 40

_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+)")
# As in C++, 075 is no decimal number: it is more often a forgotten point than 75.
_FLOAT = re.compile(r"(?!-?0[0-9]+$)(-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fF]?")
_NOT_FINITE = re.compile(r"(-?(?:infinity|inf|nan))f?", re.IGNORECASE)
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}

_ESCAPE = re.compile(rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PLAIN_ESCAPES = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))


class LiteralError(Exception):
    """Say what a value must be; the message completes a sentence that begins with the field's name."""


def convert(field: Field, tokens: Sequence[Token]) -> Value:
    """Convert a value as written to what the field holds, and check its range.

    Arguments:
        field: any field but a MESSAGE.
        tokens: one WORD, or one or more STRINGs that stand side by side and are joined.

    Raises:
        LiteralError: the value is of another type or out of range.
    """
    value = _CONVERTERS[field.kind](field, tokens)
    if field.rule is not None and not field.rule.holds(value):
        raise _mismatch(field.rule.text, tokens)
    return value


def shown(tokens: Sequence[Token]) -> str:
    """Show a value in an error as it was written, shortened where it is long."""
    text = " ".join(token.text for token in tokens)
    return text if len(text) <= _MAX_SHOWN_LENGTH else text[: _MAX_SHOWN_LENGTH - 1] + "…"


def _mismatch(rule: str, tokens: Sequence[Token], fix: str = "") -> LiteralError:
    return LiteralError(f"must be {rule}, got {shown(tokens)}" + (f"; {fix}" if fix else ""))


def _word(tokens: Sequence[Token]) -> str:
    """Return the one word of a value, without blanks after a minus sign; "" for text in quotes."""
    return re.sub(r"\s", "", tokens[0].text) if tokens[0].kind is Kind.WORD else ""


def _parse_integer(word: str) -> int | None:
    """Read a decimal, hexadecimal (0x…) or octal (0…) number as C does; None when it is none of these."""
    if not _INTEGER.fullmatch(word):
        return None
    digits = word.lstrip("-")
    is_octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
    try:
        size = int(digits, 8) if is_octal else int(digits, 0)
    except ValueError:  # an 8 or 9 in an octal number
        return None
    return -size if word.startswith("-") else size


def _integer(field: Field, tokens: Sequence[Token]) -> int:
    value = _parse_integer(_word(tokens))
    if value is None:
        raise _mismatch(field.kind.value, tokens)
    low, high = field.limits
    if not low <= value <= high:
        broken_rule = field.rule if field.rule is not None and not field.rule.holds(value) else None
        raise _mismatch(broken_rule.text if broken_rule else f"{low} to {high}", tokens)
    return value


def _float(field: Field, tokens: Sequence[Token]) -> float:
    word = _word(tokens)
    not_finite = _NOT_FINITE.fullmatch(word)
    if not_finite:
        return float(not_finite[1])
    match = _FLOAT.fullmatch(word)
    if not match:
        raise _mismatch(field.kind.value, tokens)
    value = float(match[1])
    low, high = field.limits
    if not low <= value <= high or math.isinf(value):
        raise _mismatch(f"{low:.5g} to {high:.5g}" if math.isfinite(high) else "a 64-bit number", tokens)
    return value


def _bool(field: Field, tokens: Sequence[Token]) -> bool:
    word = _word(tokens)
    if word in _BOOLS:
        return _BOOLS[word]
    number = _parse_integer(word)
    if number not in (0, 1):
        raise _mismatch(field.kind.value, tokens)
    return bool(number)


def _enum(field: Field, tokens: Sequence[Token]) -> int:
    word = _word(tokens)
    numbers = field.enum_numbers
    if word in numbers:
        return numbers[word]
    number = _parse_integer(word)
    if number in numbers.values():
        return number  # type: ignore[return-value]  # None is not among the numbers
    if tokens[0].text.strip("\"'") in numbers:
        raise _mismatch(_listed(numbers), tokens, "leave out the quotes")
    suggestion = nearest(word, numbers)
    if suggestion and len(numbers) > _MAX_ENUM_NAMES_LISTED:
        raise _mismatch(f"one of {len(numbers)} names", tokens, suggestion)
    raise _mismatch(_listed(numbers), tokens)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _bytes(field: Field, tokens: Sequence[Token]) -> bytes:
    if tokens[0].kind is not Kind.STRING:
        raise _mismatch(field.kind.value, tokens, f'write "{tokens[0].text}"')
    return b"".join(_unescape(token.text[1:-1]) for token in tokens)


def _string(field: Field, tokens: Sequence[Token]) -> str:
    try:
        return _bytes(field, tokens).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LiteralError(f"must be UTF-8, got the byte 0x{error.object[error.start]:02x}") from error


def _unescape(text: str) -> bytes:
    # Bytes of the file that are not UTF-8 have come here as surrogates: files.read_text explains.
    return _ESCAPE.sub(_escaped_bytes, text.encode("utf-8", "surrogateescape"))


def _escaped_bytes(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[0] in _PLAIN_ESCAPES:
        return bytes([_PLAIN_ESCAPES[code[0]]])
    if code[0] in b"01234567":
        return bytes([int(code, 8) & 0xFF])
    if len(code) > 1 and code[0] in b"xX":
        return bytes([int(code[1:], 16)])
    if len(code) > 1 and int(code[1:], 16) <= 0x10FFFF:
        return chr(int(code[1:], 16)).encode("utf-8", "surrogatepass")
    name = code.decode("utf-8", "replace")
    raise LiteralError(f"has an unknown escape sequence \\{name}; a backslash itself is written \\\\")


_CONVERTERS: dict[ValueKind, Callable[[Field, Sequence[Token]], Value]] = {
    ValueKind.INTEGER: _integer,
    ValueKind.FLOAT: _float,
    ValueKind.BOOL: _bool,
    ValueKind.ENUM: _enum,
    ValueKind.STRING: _string,
    ValueKind.BYTES: _bytes,
}
