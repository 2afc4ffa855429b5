"""The index of a big database: its keys in a file, written once and mapped by all ranks of a host.

Below the record sources, over key_table.py. Without it every rank would walk through the whole database when it
opens it, and hold all keys in memory of its own. The index lies in the database's folder or, where nobody may
write there, in the user's cache folder. It is taken for exactly the database that it was written for, as its stamp
says; otherwise it is written anew. Small databases have none.
"""

from __future__ import annotations

import hashlib
import io
import logging
import mmap
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from dtrain.data.key_table import KeyTable, pack_keys

log = logging.getLogger(__name__)

NUM_RECORDS_WITHOUT_INDEX = 100_000
INDEX_FILE = "dtrain.keys"


def make_stamp(*facts: object) -> bytes:
    """Return the stamp of a database about which `facts` hold: sizes, times of change, what it says of itself."""
    return hashlib.sha256(repr(facts).encode()).digest()


def index_places(folder: str, env: Mapping[str, str]) -> list[Path]:
    """Return where the index of the database in `folder` may lie: beside it, or in the user's cache on this host.

    env: the environment, in which XDG_CACHE_HOME may be.
    """
    real = os.path.realpath(folder)
    name = hashlib.sha256(f"{socket.gethostname()}:{real}".encode(errors="surrogateescape")).hexdigest()[:16]
    places = [Path(real, INDEX_FILE)]
    with suppress(RuntimeError):  # a user without a home
        cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        places.append(cache / "dtrain" / f"{os.path.basename(real)}-{name}.keys")
    return places


def open_keys(places: Iterable[Path], stamp: bytes, list_keys: Callable[[], Iterator[bytes]]) -> KeyTable:
    """Return the keys of a database, from its index if there is one, else from list_keys().

    Those of a big database are then written to the first of `places` that can be written, or kept in memory where
    none can. Whole files are renamed into place, so that several processes may do so at once.
    Raises what list_keys() raises; then nothing is written.
    """
    candidates = list(places)
    for place in candidates:
        table = _read_index(place, stamp)
        if table is not None:
            return table
    remaining = list_keys()
    first = list(islice(remaining, NUM_RECORDS_WITHOUT_INDEX))
    keys: Iterator[bytes] = chain(first, remaining)
    for place in candidates if len(first) == NUM_RECORDS_WITHOUT_INDEX else ():
        part = _open_part(place)
        if part is not None:
            with suppress(OSError):  # the disk is full, say
                return _write_index(keys, stamp, part, place)
            keys = list_keys()
    packed = io.BytesIO()
    pack_keys(keys, stamp, packed)
    return KeyTable(packed.getbuffer())


def _read_index(place: Path, stamp: bytes) -> KeyTable | None:
    """Return the keys of the index at `place`, or None unless it is whole and of the database of this stamp."""
    try:
        table = KeyTable(_map(place))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.info("%s: index can't be used (%s)", place, error)
        return None
    if table.stamp != stamp:
        log.info("%s: index is of another state of the database", place)
        return None
    return table


def _map(place: Path) -> memoryview:
    with place.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _open_part(place: Path) -> BinaryIO | None:
    """Return a new file beside `place`, or None if it can't be made."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.part").open("xb")
    except OSError:
        return None


def _write_index(keys: Iterable[bytes], stamp: bytes, part: BinaryIO, place: Path) -> KeyTable:
    """Write the index into the file `part`, rename it to `place` and map it; leave no part behind."""
    began = time.perf_counter()
    try:
        with part:
            pack_keys(keys, stamp, part)
        table = KeyTable(_map(Path(part.name)))
        os.replace(part.name, place)
    finally:
        Path(part.name).unlink(missing_ok=True)
    log.info("Indexed %d records in %s (%.1f s)", len(table), place, time.perf_counter() - began)
    return table
