"""Write a message as prototxt: what upgrades and generated nets are saved as, and logs show."""

from __future__ import annotations

from google.protobuf import text_format
from google.protobuf.message import Message


def write_text(message: Message) -> str:
    """Write a message in protobuf's text format, two spaces a level, fields in the order of their numbers.

    Floats are as short as they can be without reading back as another value; text in any script stays
    legible. Reading the text gives an equal message.
    """
    return text_format.MessageToString(message, as_utf8=True)
