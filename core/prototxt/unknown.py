"""Word the mistake of a field that its message does not have, with what may have been meant."""

from __future__ import annotations

from dtrain.core.names import nearest
from dtrain.core.prototxt.schema import Schema, schema_of

_MAX_NAMES_LISTED = 8
_MAX_OWNERS_LISTED = 2


def unknown_field(name: str, schema: Schema) -> str:
    """Complete the sentence that begins with the message's name: ``has no field "kernal_size"; …``.

    The fix is, in this order: the inner messages that have such a field, names that look alike, or all the
    names that there are when they are few.

    Arguments:
        name: the field as written.
        schema: the message in which it stands.
    """
    fix = _owners(name, schema) or nearest(name, schema.fields) or _all_names(schema)
    return f'has no field "{name}"' + (f"; {fix}" if fix else "")


def _owners(name: str, schema: Schema) -> str:
    owners = [
        field.name
        for field in schema.fields.values()
        if field.message is not None and name in schema_of(field.message, field.container).fields
    ]
    if not owners:
        return ""
    dots = ", …" if len(owners) > _MAX_OWNERS_LISTED else ""
    return f"it is a field of {', '.join(owners[:_MAX_OWNERS_LISTED])}{dots}"


def _all_names(schema: Schema) -> str:
    if len(schema.fields) > _MAX_NAMES_LISTED:
        return ""
    return f"its fields are {', '.join(schema.fields)}"
