"""One step of an upgrade: what it is called, which nets need it, and how it changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dtrain.core.prototxt import Document
from dtrain.proto import caffe_pb2

NetDocument = Document[caffe_pb2.NetParameter]


@dataclass(frozen=True)
class Step:
    """A step of the upgrade of nets.

    words: what is said of a file that needs it, after the file's name. is_needed: whether a net has what the step
    replaces. apply: returns the document without it; the message in it may be changed. Raises UserError.
    """

    words: str
    is_needed: Callable[[caffe_pb2.NetParameter], bool]
    apply: Callable[[NetDocument], NetDocument]
