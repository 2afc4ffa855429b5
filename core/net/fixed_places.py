"""Where the values of a net lie when a captured pass begins and ends: the same arrays at each replay.

A CUDA graph knows addresses. What Python does while it is captured (which memory is written, valid, given back) it
does not do again when the graph is replayed; this brings values to where the graph reads them before, and says what
is where after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.net.carried_state import give_states, take_states
from dtrain.core.net.net import Net
from dtrain.core.tensor import HOST, HostMemory, Memory, Storage


class _Unwritten(HostMemory):
    """No memory: counted among those with valid values, it is dropped from them when values are written."""

    name = "unwritten"


_UNWRITTEN = _Unwritten()


@dataclass(frozen=True)
class _State:
    """What a storage knows of its values; see Storage."""

    copies: dict[Memory, Any]
    valid: frozenset[Memory]
    given_back: str

    @classmethod
    def of(cls, storage: Storage) -> _State:
        return cls(dict(storage.copies), frozenset(storage.valid), storage.given_back)

    def is_same(self, other: _State) -> bool:
        """Return whether arrays and all else are the same."""
        return (
            self.valid == other.valid
            and self.given_back == other.given_back
            and self.copies.keys() == other.copies.keys()
            and all(array is other.copies[memory] for memory, array in self.copies.items())
        )

    def set(self, storage: Storage) -> None:
        """Let `storage` know this, but keep its array on the host, which somebody may hold."""
        host = storage.copies.get(HOST)
        storage.copies = dict(self.copies)
        if host is not None:
            storage.copies[HOST] = host
        storage.valid = set(self.valid)
        storage.given_back = self.given_back


class Watch:
    """Knows which of the storages that it watches somebody has looked into, and so may have changed.

    That is what costs no time where nobody does: most of a net's, from one replay to the next.

    looked_into: since `clear`, in that order, by whomever: who watches too. of: whose `conclude` was the last.
    """

    def __init__(self) -> None:
        self.looked_into: dict[Storage, None] = {}
        self.of: FixedPlaces | None = None
        self._watched = _make_watched(self.looked_into)
        self._storages: dict[Storage, None] = {}

    def add(self, storages: Iterable[Storage]) -> None:
        """Watch these, too."""
        for storage in storages:
            storage.__class__ = self._watched
            self._storages[storage] = None

    def end(self) -> None:
        """Watch none any more, and hold none."""
        for storage in self._storages:
            storage.__class__ = Storage
        self._storages.clear()
        self.looked_into.clear()
        self.of = None


def _make_watched(looked_into: dict[Storage, None]) -> type[Storage]:
    """Return the type of storages that enter themselves when what they know of their values is asked for or set."""

    def told(name: str) -> Any:
        member = getattr(Storage, name)

        def get(storage: Storage) -> Any:
            looked_into[storage] = None
            return member.__get__(storage)

        def put(storage: Storage, value: Any) -> None:
            looked_into[storage] = None
            member.__set__(storage, value)

        return property(get, put)

    # What is set without one of these being asked for can be left to its own: it says nothing by itself.
    members = {"__slots__": (), "copies": told("copies"), "valid": told("valid")}
    return type("WatchedStorage", (Storage,), members)


class FixedPlaces:
    """The places of one net's values around one captured pass. Arrays that it knows stay.

    Arguments:
        sources: the blobs that are written before the pass.
        watch: one for all passes of the net; None: of this pass alone.
    """

    def __init__(self, net: Net, sources: Sequence[Blob], watch: Watch | None = None) -> None:
        self._net = net
        self._watch = watch or Watch()
        self._sources = {id(blob.data_tensor.storage) for blob in sources}
        self._source_shapes = [(blob, blob.shape) for blob in sources]
        self._begin: list[tuple[Storage, _State]] = []
        self._read: dict[Storage, tuple[list[tuple[Memory, Any]], set[Memory]]] = {}
        self._unsteady: dict[Storage, None] = {}  # of those, what must be seen to in front of each replay
        self._awaited: list[tuple[Storage, list[tuple[Memory, Any]]]] = []
        self._changed: dict[Storage, _State] = {}

    def record(self, run: Callable[[], None]) -> None:
        """Do `run`, which captures the pass, and note where values are before and behind it.

        If it raises, nothing is noted, and storages know what they did before.
        """
        storages = storages_of(self._net)
        on_host = [storage for storage in storages if HOST in storage.valid]
        for storage in storages:
            self._settle(storage)
        begin = [(storage, _State.of(storage)) for storage in storages]
        for storage, state in begin:
            if state.valid:
                storage.valid.add(_UNWRITTEN)
        try:
            run()
        except Exception:
            for storage, state in begin:
                _put_back(storage, state)
            raise
        self._begin = begin
        self._read = {storage: _on_device(state) for storage, state in begin if _on_device(state)[0]}
        self._awaited = [
            (storage, there) for storage, (there, _) in self._read.items() if id(storage) in self._sources
        ]
        self._find_changed(dict(begin))
        for storage in on_host:
            if storage.is_shown and storage not in self._changed:
                storage.valid.add(HOST)  # whoever holds the array may go on to change it

    def _find_changed(self, begin: dict[Storage, _State]) -> None:
        """Note the storages that are written in the pass, or know anything else after it than before."""
        for storage in storages_of(self._net):
            is_written = _UNWRITTEN not in storage.valid
            storage.valid.discard(_UNWRITTEN)
            end = _State.of(storage)
            if is_written or storage not in begin or not end.is_same(begin[storage]):
                self._changed[storage] = end

    def undo(self) -> None:
        """Let storages know what they did before the pass was captured: it will not be replayed."""
        for storage, state in self._begin:
            _put_back(storage, state)

    def await_sources(self) -> None:
        """Let what writes the sources write them where the pass reads them; their values are as they were."""
        for storage, there in self._awaited:
            for memory, array in there:
                found = storage.copies.get(memory)
                if found is not array:
                    if found is not None and memory in storage.valid:
                        array[...] = found
                    storage.copies[memory] = array

    def find_reshaped(self) -> str:
        """Return which source has another shape or memory than when the pass was captured; "" if none has."""
        for blob, shape in self._source_shapes:
            if blob.shape != shape:
                return f"a batch of shape {blob.shape} came after one of {shape}"
        return ""

    def prepare(self) -> None:
        """Bring the newest values to where the pass reads them, if somebody has changed them elsewhere."""
        if self._watch.of is self:
            looked_into = self._watch.looked_into | self._unsteady
            to_see_to = [storage for storage in looked_into if storage in self._read]
        else:
            to_see_to = list(self._read)
        for storage in to_see_to:
            there, valid = self._read[storage]
            if storage.is_shown and HOST in storage.valid:  # who holds that array need not ask again
                self._unsteady[storage] = None
            elif _is_there(storage, there, valid):
                continue
            for memory, array in there:
                if not storage.is_valid(memory):
                    storage.make_valid(memory)
                if storage.copies[memory] is not array:
                    array[...] = storage.copies[memory]
                    storage.copies[memory] = array
            # What the pass does not write stays valid for whoever holds the array on the host, and may change it.
            storage.valid = valid | {HOST} if storage.is_shown and HOST in storage.valid else set(valid)

    def conclude(self) -> None:
        """Say where values are now that the pass has been replayed."""
        watch = self._watch
        if watch.of is self:
            for storage in list(watch.looked_into):
                if storage in self._changed:
                    self._changed[storage].set(storage)
        else:
            for storage, state in self._changed.items():
                state.set(storage)
            for storage, (there, valid) in self._read.items():
                if not _is_there(storage, there, valid):
                    self._unsteady[storage] = None
            watch.add(chain(self._read, self._changed))
            watch.of = self
        watch.looked_into.clear()

    def _settle(self, storage: Storage) -> None:
        """Let the device have what is on the host, if it has had it before; alone, if somebody may hold the array."""
        if HOST not in storage.valid:
            return
        there = [memory for memory in storage.copies if memory is not HOST]
        if not there:
            return
        memory = storage.home if storage.home in there else there[0]
        if not storage.is_valid(memory):
            storage.make_valid(memory)
        if storage.is_shown:
            storage.valid = {memory}


def _on_device(state: _State) -> tuple[list[tuple[Memory, Any]], set[Memory]]:
    """Return the valid copies on the device, by their memories, and all memories with valid ones."""
    there = [(memory, array) for memory, array in state.copies.items() if memory in state.valid]
    return [(memory, array) for memory, array in there if memory is not HOST], set(state.valid)


def _is_there(storage: Storage, there: list[tuple[Memory, Any]], valid: set[Memory]) -> bool:
    """Return whether a storage has these copies, and these are the memories where it has valid ones."""
    return storage.valid == valid and all(storage.copies.get(memory) is array for memory, array in there)


def pin(blobs: Sequence[Blob], memory: Memory) -> None:
    """Let the data of `blobs`, which have been written, have memory for good, in `memory` if none on the device."""
    for blob in blobs:
        storage = blob.data_tensor.storage
        storage.pool = None
        if blob.count and storage.valid <= {HOST}:
            storage.make_valid(memory)


def _put_back(storage: Storage, state: _State) -> None:
    """Let `storage` know again what it did; what has taken an array out of it keeps that, and a copy is here."""
    copies = {
        memory: array if memory is HOST or storage.copies.get(memory) is array else array.copy()
        for memory, array in state.copies.items()
    }
    _State(copies, state.valid, state.given_back).set(storage)


def settle(blobs: Sequence[Blob], memory: Memory) -> None:
    """Let the data of `blobs`, params that are in no arena, stay in `memory`, as that of those in one does."""
    for blob in blobs:
        storage = blob.data_tensor.storage
        if storage.home is None:
            blob.read_data(memory)
            storage.home = memory


@contextmanager
def put_back(net: Net) -> Iterator[None]:
    """Let passes in the with block, of the same shapes, leave nothing of themselves in `net`, on whatever memory."""
    states = [(storage, _State.of(storage)) for storage in storages_of(net)]
    carried = take_states(net)
    statistics = [
        (array, array.copy())
        for param in net.learnable_params
        if param.is_statistic
        for array in param.blob.data_tensor.storage.copies.values()
    ]
    try:
        yield
    finally:
        for storage, state in states:
            _put_back(storage, state)
        for array, values in statistics:
            array[...] = values
        give_states(net, carried)


def storages_of(net: Net) -> list[Storage]:
    """Return the storages of all blobs and params of `net`, each once."""
    blobs = [*net.blobs.values(), *(blob for layer in net.layers for blob in layer.blobs)]
    tensors = [tensor for blob in blobs for tensor in (blob.data_tensor, blob.diff_tensor)]
    return list({id(tensor.storage): tensor.storage for tensor in tensors}.values())
