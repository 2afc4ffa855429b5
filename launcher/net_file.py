"""Net files of any age, text or binary, read and written whole: for the commands that rewrite them.

Beside the flow prototxt → graph → net → …: binary files are NetParameters with weights in them (.caffemodel).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade import NetDocument
from dtrain.core.prototxt import Document, is_binary, read_text, write_text
from dtrain.core.snapshots.message_file import CAFFEMODEL, MAX_MESSAGE_BYTES, check_kind, is_hdf5, kind_of
from dtrain.core.snapshots.wire import WireError
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetFile:
    """A net as its file has it, and whether the file is binary."""

    document: NetDocument
    is_binary: bool

    def with_document(self, document: NetDocument) -> NetFile:
        """Return the file with another content."""
        return replace(self, document=document)


def read_net_file(path: str) -> NetFile:
    """Read a net, text or binary by its content. Raises UserError if it is neither, or damaged."""
    data = _read_bytes(path)
    if data is not None and is_hdf5(memoryview(data)):
        raise UserError(f"{path}: must be a net, got HDF5, which holds weights alone")
    if data is None or not is_binary(data):
        return NetFile(read_text(path, caffe_pb2.NetParameter), is_binary=False)
    return NetFile(Document(_parse(path, data), path, {}), is_binary=True)


def write_net_file(path: str, net: caffe_pb2.NetParameter, as_binary: bool) -> None:
    """Write a net, whole or not at all. Raises UserError if that can't be."""
    if not as_binary:
        replace_file(path, write_text(net).encode())
        return
    if net.ByteSize() > MAX_MESSAGE_BYTES:
        raise UserError(
            f"{path}: a binary net must be at most {MAX_MESSAGE_BYTES} bytes, got {net.ByteSize()}"
        )
    try:
        data = net.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise UserError(f"{path}: must be a net that protobuf writes, got: {error}") from None
    replace_file(path, data)


def replace_file(path: str, data: bytes) -> None:
    """Put a file in place, whole or not at all. Raises UserError if the disk refuses."""
    temporary = Path(f"{path}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: must be a file that can be written, got: {error.strerror}") from None


def _read_bytes(path: str) -> bytes | None:
    """Return a file's bytes; None where it can't be read, which the reader of texts says best."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _parse(path: str, data: bytes) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter()
    if len(data) > MAX_MESSAGE_BYTES:
        raise UserError(
            f"{path}: a binary net must be at most {MAX_MESSAGE_BYTES} bytes, which protobuf reads, got {len(data)}"
        )
    try:
        check_kind(path, CAFFEMODEL, kind_of(memoryview(data)))
        net.ParseFromString(data)
    except (WireError, DecodeError) as error:
        raise UserError(f"{path}: must be a net, text or binary, got: {error}") from None
    if not (net.layer or net.layers):
        raise UserError(f"{path}: must be a net, got a file without layers")
    _discard_unknown(path, net)
    return net


def _discard_unknown(path: str, net: caffe_pb2.NetParameter) -> None:
    """Remove the fields that caffe.proto does not have, such as a fork's, and warn of each layer that had any."""
    layers: list[Any] = [*net.layer, *net.layers]
    for layer in layers:
        numbers = sorted(_unknown_numbers(layer))
        if numbers:
            log.warning(
                '%s: layer "%s": fields %s are left out: dtrain does not know them; they are a fork\'s',
                *(path, layer.name, ", ".join(map(str, numbers))),
            )
    net.DiscardUnknownFields()


def _unknown_numbers(message: Message) -> set[int]:
    """Return the numbers of unknown fields in a message and in those in it; weights are not looked at."""
    unknown = UnknownFieldSet(message)
    numbers = {unknown[i].field_number for i in range(len(unknown))}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.name != "BlobProto":
            for inner in [value] if isinstance(value, Message) else value:
                numbers |= _unknown_numbers(inner)
    return numbers
