"""A message written in one of the many ways in which prototxt can say the same.

With other white space, comments, separators and braces, lists or single items, fields in another order, numbers
in other bases, enums by number, strings cut, escaped and quoted otherwise. What the text format allows is read off
protobuf's own specification of it (https://protobuf.dev/reference/protobuf/textformat-spec).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzzing.messages import is_repeated

_BLANKS = ("", " ", "  ", "\t", "\n", "\r\n", " # a comment { \" ' } : 1\n", "#\n")
_SEPARATORS = ("\n", " ", "\n\n", ",", ";", " ; ", ",\n", "\t", "\r\n", " # } and more: 2\n", "\n#größe\n")
_BRACES = (("{", "}"), ("<", ">"))
_BOOLS = {True: ("true", "True", "t", "1", "0x1"), False: ("false", "False", "f", "0", "00")}
_INFINITIES = ("inf", "Infinity", "INF", "inff", "infinity")
_NANS = ("nan", "NaN", "NAN", "nanf")
_ESCAPED = b"\a\b\t\n\v\f\r\"'\\"  # and \? for ?, which protobuf's own reader in Python does not know
_PLAIN_ESCAPES = {byte: "\\" + letter for byte, letter in zip(_ESCAPED, "abtnvfr\"'\\", strict=True)}


class Speller:
    """Writes messages; what it writes depends on `random` alone."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def spell(self, message: Message) -> str:
        """Return a text of the message."""
        queues = [self._entries(field, value) for field, value in message.ListFields()]
        for name in self._absent_lists(message):
            queues.append([f"{name}{self._blank()}:[{self._blank()}]"])
        entries = list(self._merged(queues))
        return self._blank() + "".join(entry + self._pick(_SEPARATORS) for entry in entries)

    def _pick(self, choices: Any) -> Any:
        return self._random.choice(choices)

    def _blank(self) -> str:
        return str(self._pick(_BLANKS)) if self._random.random() < 0.4 else ""

    def _merged(self, queues: list[list[str]]) -> Iterable[str]:
        """Yield the entries of all fields mixed, those of one field in their order."""
        left = [list(queue) for queue in queues if queue]
        while left:
            queue = self._pick(left)
            yield queue.pop(0)
            left = [queue for queue in left if queue]

    def _absent_lists(self, message: Message) -> list[str]:
        if self._random.random() < 0.9:
            return []
        names = [field.name for field in message.DESCRIPTOR.fields if is_repeated(field)]
        empty = [name for name in names if not getattr(message, name)]
        return [self._pick(empty)] if empty else []

    def _entries(self, field: FieldDescriptor, value: Any) -> list[str]:
        """Return what a field is written as: one entry, or for a repeated one several of items or lists."""
        items = list(value) if is_repeated(field) else [value]
        entries = []
        while items:
            in_list = is_repeated(field) and self._random.random() < 0.3
            taken = self._random.randint(1, len(items)) if in_list else 1
            texts = [self._value(field, item) for item in items[:taken]]
            del items[:taken]
            colon = self._blank() + ":" if field.message_type is None or self._pick((True, False)) else ""
            between = f"{self._blank()},{self._blank()}"
            text = f"[{self._blank()}{between.join(texts)}{self._blank()}]" if in_list else texts[0]
            entries.append(f"{field.name}{colon}{self._blank()}{text}")
        return entries

    def _value(self, field: FieldDescriptor, value: Any) -> str:
        if field.message_type is not None:
            opener, closer = self._pick(_BRACES)
            return f"{opener}{self.spell(value)}{closer}"
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            name = field.enum_type.values_by_number[value].name
            return str(self._pick((name, self._integer(value))))
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return str(self._pick(_BOOLS[value]))
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._text(value)
        if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return self._float(value, field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT)
        return self._integer(value)

    def _integer(self, value: int) -> str:
        size = abs(value)
        digits = self._pick(
            (f"{size}", f"{size}", f"0x{size:x}", f"0X{size:X}", f"0x0{size:x}", f"0{size:o}")
        )
        return f"{self._pick(('-', '-', '- ')) if value < 0 else ''}{digits}"

    def _float(self, value: float, is_single: bool) -> str:
        sign = "-" if math.copysign(1, value) < 0 and not math.isnan(value) else ""
        if not math.isfinite(value):
            return sign + self._pick(_NANS if math.isnan(value) else _INFINITIES)
        size = abs(value)
        texts = [repr(size), f"{size:.17g}", f"{size:.17e}", f"{size:.17E}"]
        if is_single:
            texts += [str(np.float32(size)), f"{size:.9g}"]
        text = self._pick(texts)
        if text.startswith("0.") and self._pick((True, False)):
            text = text[1:]
        elif text.endswith(".0") and self._pick((True, False)):
            text = text[:-1]
        return f"{sign}{text}{self._pick(('', '', 'f', 'F'))}"

    def _text(self, value: str | bytes) -> str:
        """Return a string or bytes as one or more quoted pieces."""
        is_text = isinstance(value, str)
        units = [char.encode() for char in value] if isinstance(value, str) else [bytes([b]) for b in value]
        pieces = []
        while units or not pieces:
            taken = self._random.randint(0, len(units)) if self._random.random() < 0.3 else len(units)
            pieces.append(self._quoted(units[:taken], is_text))
            del units[:taken]
        gaps = (" ", "", "\n", "\t# and on\n")
        return "".join(piece + self._pick(gaps) for piece in pieces[:-1]) + pieces[-1]

    def _quoted(self, units: list[bytes], is_text: bool) -> str:
        quote = self._pick(("'", '"'))
        return quote + "".join(self._unit(unit, quote, is_text) for unit in units) + quote

    def _unit(self, unit: bytes, quote: str, is_text: bool) -> str:
        """Return one character of a text, or one of bytes, plain where it can be, or escaped."""
        is_plain = is_text or unit[0] < 0x80
        char = unit.decode() if is_plain else ""
        can_be_plain = is_plain and char not in (quote, "\\") and (char.isprintable() or char == " ")
        if can_be_plain and self._random.random() < 0.8:
            return char
        ways = ["".join(f"\\{byte:03o}" for byte in unit), "".join(f"\\x{byte:02x}" for byte in unit)]
        if len(unit) == 1 and unit[0] in _PLAIN_ESCAPES:
            ways = [_PLAIN_ESCAPES[unit[0]]]
        if is_text and char != "\\":  # protobuf's own reader in Python would take the backslash for an escape
            ways += [f"\\U{ord(char):08X}"] + [f"\\u{ord(char):04x}"] * (ord(char) < 0x10000)
        return str(self._pick(ways))
