"""Read a prototxt file or text into a message, or report all of its mistakes at once."""

from __future__ import annotations

import os
import re
from pathlib import Path as FilePath

from google.protobuf.message import Message

from dtrain.core.errors import UserError
from dtrain.core.names import nearest
from dtrain.core.prototxt.document import Document, MessageT
from dtrain.core.prototxt.mistakes import Mistakes, noun
from dtrain.core.prototxt.parser import Parser
from dtrain.core.prototxt.schema import schema_of
from dtrain.core.prototxt.tokens import tokenize
from dtrain.proto import caffe_pb2

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_OTHER_KINDS_OF_FILES: dict[str, type[Message]] = {
    "NetParameter": caffe_pb2.SolverParameter,
    "SolverParameter": caffe_pb2.NetParameter,
}


def read_text(path: str | os.PathLike[str], message_type: type[MessageT]) -> Document[MessageT]:
    """Read a prototxt file.

    Arguments:
        path: the file, in UTF-8; a byte order mark and Windows line ends are fine, and comments may be in any
            encoding.
        message_type: what the file holds, for example caffe_pb2.NetParameter.

    Raises:
        UserError: the file is missing, unreadable, binary or empty (one sentence), or has mistakes (one for
            each, with its line).
    """
    name = os.fspath(path)
    data = _read_bytes(name).removeprefix(_UTF8_MARK)
    if data.startswith(_UTF16_MARKS):
        raise UserError(f"{name}: must be UTF-8 text, got UTF-16; save it as UTF-8")
    if is_binary(data):
        raise UserError(
            f"{name}: must be a prototxt, got a binary file; weights (.caffemodel) are given by --weights, "
            "a solver's state by --snapshot"
        )
    # Comments of many published nets are in other encodings. Bytes that are not UTF-8 become surrogates here
    # and are refused where a value has them.
    document = parse_text(data.decode("utf-8", "surrogateescape"), message_type, name)
    if not document.lines:
        raise UserError(f"{name}: must describe {noun(message_type)}, got an empty file")
    return document


def is_binary(data: bytes) -> bool:
    """Tell a file of bytes, such as a .caffemodel, from a text, by the control characters in it."""
    return _CONTROL_CHARACTER.search(data) is not None


def parse_text(text: str, message_type: type[MessageT], path: str = "<string>") -> Document[MessageT]:
    """Read a text in protobuf's text format, as the files of Caffe use it.

    Understood are ``field: value``, ``field { … }`` with or without colon and with ``< … >`` too, lists
    ``[a, b]``, strings side by side, comments, and separating commas and semicolons. Not read are extensions
    and Any messages, which caffe.proto does not have.

    Arguments:
        text: all of it.
        message_type: what it holds.
        path: the file's name in errors and in ``Document.where``.

    Raises:
        UserError: the text has mistakes: one problem for each, in the order of their lines.
    """
    mistakes = Mistakes(path)
    parser = Parser(tokenize(text), mistakes)
    message = message_type()
    parser.read(message)
    _refuse_other_kind_of_file(path, message_type, parser.outer_names)
    mistakes.raise_if_any(message)
    return Document(message, path, parser.lines)


def _refuse_other_kind_of_file(path: str, message_type: type[Message], outer_names: set[str]) -> None:
    """Report a net given as a solver, or the reverse, by one problem in place of one for each field."""
    other_type = _OTHER_KINDS_OF_FILES.get(message_type.DESCRIPTOR.name, message_type)
    could_be = [
        outer_names <= schema_of(kind.DESCRIPTOR).fields.keys() for kind in (message_type, other_type)
    ]
    if could_be == [False, True]:
        raise UserError(f"{path}: must describe {noun(message_type)}, got {noun(other_type)}")


def _read_bytes(name: str) -> bytes:
    try:
        return FilePath(name).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file" + _similar_file(FilePath(name))) from error
    except IsADirectoryError as error:
        raise UserError(f"{name}: must be a file, got a folder") from error
    except OSError as error:
        raise UserError(f"{name}: must be readable, got: {error.strerror}") from error
    except ValueError as error:  # the system has no way to say such a name
        raise UserError(f"{name}: must be a file's name, got one with a NUL character") from error


def _similar_file(path: FilePath) -> str:
    if not os.access(path.parent, os.R_OK | os.X_OK):
        return ""
    suggestion = nearest(path.name, os.listdir(path.parent))
    return f"; {suggestion}" if suggestion else ""
