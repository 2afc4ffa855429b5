"""The file of a snapshot that holds what layers carry from one batch to the next, on each rank.

`<stem>.carried` lies beside Caffe's two files where there is any such thing: the states of recurrent layers, and
what Python layers ask to be kept. Caffe has no such file. A line of JSON says how many bytes each layer of each rank
has; these bytes follow. Its damage is noticed by the manifest's checksum.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import Part
from dtrain.core.snapshots.message_file import map_file

CARRIED = ".carried"

LayerState = tuple[str, bytes]
"""A layer's name and its state on one rank."""


def encode_carried(ranks: Sequence[Sequence[LayerState]]) -> list[Part]:
    """Return the bytes of a .carried file from the states of each rank, in rank order."""
    sizes = [[(name, len(state)) for name, state in states] for states in ranks]
    return [f"{json.dumps(sizes)}\n".encode(), *(state for states in ranks for _, state in states)]


def read_carried(path: str | os.PathLike[str]) -> list[list[LayerState]]:
    """Read a .carried file: the states of each rank, in rank order.

    Raises:
        UserError: the file is missing, unreadable or not one that encode_carried made.
    """
    try:
        return decode_carried(bytes(map_file(path, CARRIED)))
    except (ValueError, RecursionError):  # the latter where JSON is nested without end
        raise UserError(
            f"{path}: file must be a whole {CARRIED}, got other bytes; it is damaged or of another kind: use "
            "another snapshot"
        ) from None


def decode_carried(content: bytes) -> list[list[LayerState]]:
    """Return the states of each rank from the bytes of encode_carried; raises ValueError for others."""
    line, newline, states = content.partition(b"\n")
    sizes = json.loads(line)
    ranks: list[list[LayerState]] = []
    start = 0
    try:
        for layers in sizes:
            ranks.append([])
            for name, size in layers:
                if size < 0:
                    raise ValueError(f"{size} bytes of state")
                ranks[-1].append((str(name), states[start : start + size]))
                start += size
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not newline or start != len(states):
        raise ValueError(f"{len(states)} bytes of state where the first line says {start}")
    return ranks
