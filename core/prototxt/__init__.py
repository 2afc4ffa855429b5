"""Read and write prototxt, the flow's first stage, with file and line for every mistake and every element."""

from __future__ import annotations

from dtrain.core.prototxt.document import Document as Document
from dtrain.core.prototxt.document import Path as Path
from dtrain.core.prototxt.reading import is_binary as is_binary
from dtrain.core.prototxt.reading import parse_text as parse_text
from dtrain.core.prototxt.reading import read_text as read_text
from dtrain.core.prototxt.writing import write_text as write_text
