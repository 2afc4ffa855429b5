"""A tensor whose values can live in several memories and layouts at once: what a blob is made of.

Caffe's SyncedMemory keeps a host and a GPU copy and moves values when the other side is asked for. A tensor
does the same between plain host arrays (row-major, what `blob.data` shows) and whatever an engine likes
better: device memory, NHWC, a blocked layout. Whoever asks says which memory and what for:

    read(memory)    valid values, not to be changed
    write(memory)   an array to overwrite; what was there before is void
    update(memory)  valid values that may be changed
    join(memory)    the latter, or the former where all are zero: what a sum begins with costs no pass over memory

and nobody pays for a copy that nobody reads.

Storages may borrow their memory from a pool. Once given back, values can't be read before they are written anew.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.core.errors import UserError
from dtrain.core.memory_pool import MemoryPool
from dtrain.dist.memory import aligned_zeros

Borrow = Callable[[int, DTypeLike], NDArray[Any]]


class Memory(ABC):
    """A place and layout in which a tensor's values can live. Instances are compared by identity.

    rounds: values have fewer bits there, all as one 16-bit type has them. Copies are made of others then where there
    are any, but for memories that round too: the bits are the same, and half as many. has_addresses: its arrays are
    plain ones on a GPU, `array.data.ptr` is where. frees_unheld: what an array takes is free for others once nobody
    holds it, so that of values which die nobody may keep a view.
    """

    name: str
    rounds: bool = False
    has_addresses: bool = False
    frees_unheld: bool = False

    @abstractmethod
    def allocate(self, count: int, dtype: DTypeLike) -> Any:
        """Return storage for `count` values; its contents are zero."""

    def borrow(self, borrow: Borrow, count: int, dtype: DTypeLike) -> Any:
        """Return storage as `allocate` does, what `borrow` gives for a number of bytes and a type, whatever is there.

        By default there is no such: what is not in plain host memory has an allocation, or a pool, of its own.
        """
        return self.allocate(count, dtype)

    @abstractmethod
    def view(self, storage: Any, shape: tuple[int, ...]) -> Any:
        """Return the first values of `storage` as an array of `shape`, sharing memory."""

    @abstractmethod
    def from_host(self, host: NDArray[Any], storage: Any) -> None:
        """Copy flat host values into `storage`."""

    @abstractmethod
    def to_host(self, storage: Any, host: NDArray[Any]) -> None:
        """Copy the values of `storage` into the flat array `host`."""

    def mark(self) -> Callable[[], bool]:
        """Return what says, without waiting, whether all that was begun there so far is done.

        By default it is: what the host computes is done when it goes on.
        """
        return lambda: True

    def take(self, source: Memory, values: Any, storage: Any) -> bool:
        """Copy `values`, which are those of memory `source`, into `storage`, and return whether that can be done.

        By default it can't: the values then go by way of the host.
        """
        return False


class HostMemory(Memory):
    """Plain row-major numpy arrays."""

    name = "host"

    def allocate(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return aligned zeros."""
        return aligned_zeros(count, dtype)

    def borrow(self, borrow: Borrow, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return what is lent."""
        return borrow(count * np.dtype(dtype).itemsize, dtype)

    def view(self, storage: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a numpy view."""
        return storage[: math.prod(shape)].reshape(shape)

    def from_host(self, host: NDArray[Any], storage: NDArray[Any]) -> None:
        """Copy; only ever needed between two host memories."""
        storage[...] = host

    def to_host(self, storage: NDArray[Any], host: NDArray[Any]) -> None:
        """Copy; only ever needed between two host memories."""
        host[...] = storage


HOST = HostMemory()


class Storage:
    """The copies of one run of values, and which of them are valid. Shared by tensors that share data.

    is_shown: somebody may hold the host array and change it at any time, so that copies of it are made anew at each
    reading. pool: where memory is borrowed from; None: it has its own. given_back: whose values were here, in words,
    once their memory belongs to others; `valid` then still says where they lay. "": they are here, or were never
    written. home: where the array is part of an arena, None if none is.
    """

    __slots__ = (
        "capacity",
        "copies",
        "dtype",
        "given_back",
        "home",
        "is_shown",
        "pool",
        "valid",
    )

    def __init__(self, capacity: int, dtype: DTypeLike = np.float32, pool: MemoryPool | None = None) -> None:
        self.capacity = capacity
        self.dtype = np.dtype(dtype)
        self.copies: dict[Memory, Any] = {}
        self.valid: set[Memory] = set()
        self.is_shown = False
        self.home: Memory | None = None
        self.pool = pool
        self.given_back = ""

    def is_valid(self, memory: Memory) -> bool:
        """Return whether the copy in `memory` has the newest values for sure."""
        if self.is_shown and memory is not HOST and HOST in self.valid:
            return False
        return memory in self.valid

    def make_valid(self, memory: Memory) -> None:
        """Bring the newest values into `memory`, which has them not; values never written are zero."""
        is_old = memory in self.copies  # and may have values of before clear()
        array = self.ensure(memory)
        if not self.valid:
            if is_old or self.pool is not None:
                array[...] = 0
        elif (HOST in self.valid and not memory.rounds) or not self._take(memory, array):
            if HOST not in self.valid:
                source = self._sources(HOST)[0]
                source.to_host(self.copies[source], self.ensure(HOST))
                self.valid.add(HOST)
            if memory is not HOST:
                memory.from_host(self.copies[HOST], array)
        self.valid.add(memory)

    def _take(self, memory: Memory, array: Any) -> bool:
        """Copy straight from another memory, if one is near enough; else the host is between them."""
        return any(memory.take(source, self.copies[source], array) for source in self._sources(memory))

    def _sources(self, target: Memory) -> list[Memory]:
        """Return where the newest values are, the finest first, or the rounded where `target` rounds as well; of
        equals the oldest, so that runs do the same.
        """
        newest = (memory for memory in self.copies if self.is_valid(memory))
        return sorted(newest, key=lambda memory: memory.rounds != target.rounds)

    def ensure(self, memory: Memory) -> Any:
        """Return the copy in `memory`, allocated if need be, without making it valid.

        Raises UserError if the values were given back.
        """
        array = self.copies.get(memory)
        if array is None:
            if self.given_back:
                raise UserError(
                    f"{self.given_back}: values must be read before the last layer that needs them is done, got a "
                    "read after that, when other blobs have their memory; keep all blobs (--keep-blobs)"
                )
            array = self._make_copy(memory)
        return array

    def clear(self) -> None:
        """Let all values be zero. Memory is only written if somebody may hold the array; else when they are read."""
        self.given_back = ""
        self.valid.clear()
        if self.is_shown:
            self.make_valid(HOST)

    def void(self, memory: Memory) -> Any:
        """Return the copy in `memory`, which is about to be overwritten; all others are void."""
        self.given_back = ""
        array = self.copies.get(memory)
        if array is None:
            array = self._make_copy(memory)
        if memory not in self.valid or len(self.valid) > 1:
            self.void_others(memory)
        return array

    def void_others(self, memory: Memory) -> None:
        """Let the copy in `memory` be the only one that is valid. What a pool lent for others goes back to it later:
        whoever writes over the values may do so while it reads them elsewhere.
        """
        self.valid = {memory}
        if len(self.copies) > 1 and self.pool is not None:
            self.pool.put_off(self.drop_void)

    def drop_void(self) -> None:
        """Give back the memory of copies that are not valid: they may be of layouts for another shape.

        That of the host is kept, for people and arenas may hold it, unless it is borrowed.
        """
        for memory in [memory for memory in self.copies if memory not in self.valid]:
            if memory is HOST:
                stays = self.is_shown or not self._is_borrowed(self.copies[HOST])
            else:
                stays = memory is self.home
            if not stays:
                self._drop(memory)

    def drop_layouts(self, but: Collection[Memory] = ()) -> None:
        """Give back all but the copy at home, on the host if there is none, if that is valid, and those in `but`."""
        home = self.home or HOST
        if home in self.valid and len(self.copies) > 1:
            dropped = [
                memory for memory in self.copies if not self.stays(memory) and memory not in (home, *but)
            ]
            for memory in dropped:
                self.valid.discard(memory)
                self._drop(memory)

    def borrow_from(self, pool: MemoryPool) -> None:
        """Have memory of `pool` from now on; the values so far are gone."""
        assert not self.is_shown, "somebody may hold the array"
        for memory in list(self.copies):
            self._drop(memory)
        self.valid.clear()
        self.pool = pool

    def give_back(self, title: str) -> None:
        """Return all memory to the pool, if anything was written and nobody may hold the array.

        Who reads the values before they are written anew is told that those of `title` are gone.
        """
        pool, copies = self.pool, self.copies
        if pool is not None and copies and self.valid and not self.is_shown:
            while copies:
                _, array = copies.popitem()
                if pool.has_lent(array):
                    pool.give_back(array)
            self.given_back = title

    def stays(self, memory: Memory) -> bool:
        """Return whether others count on the array in `memory`: they hold it, or it is part of an arena."""
        return memory is self.home or (memory is HOST and self.is_shown)

    def exchange(self, memory: Memory, array: Any = None) -> tuple[Any, MemoryPool | None]:
        """Hand over the copy in `memory`, which does not stay, and take `array`, whatever it contains, in its place;
        None: new memory when it is written next.

        Return the copy, and the pool that it must go back to; None: it is nobody else's.
        """
        found = self.copies.pop(memory)
        self.valid.discard(memory)
        if array is not None:
            self.copies[memory] = array
        return found, self.pool if self._is_borrowed(found) else None

    def replace(self, array: Any, memory: Memory) -> None:
        """Let the flat array in `memory`, which holds the values already, be the only copy, and stay so."""
        self.home = memory
        self.capacity = array.size
        self.copies = {memory: array}
        self.valid = {memory}

    def _make_copy(self, memory: Memory) -> Any:
        if self.pool is None:
            array = memory.allocate(self.capacity, self.dtype)
        else:
            array = memory.borrow(self.pool.lend, self.capacity, self.dtype)
        self.copies[memory] = array
        return array

    def _is_borrowed(self, array: Any) -> bool:
        return self.pool is not None and self.pool.has_lent(array)

    def _drop(self, memory: Memory) -> None:
        array = self.copies.pop(memory)
        if self.pool is not None and self.pool.has_lent(array):
            self.pool.give_back(array)


class Tensor:
    """An array of a shape over a storage that other tensors may share."""

    __slots__ = ("_array", "_memory", "_view", "count", "shape", "storage")

    def __init__(self, shape: tuple[int, ...] = (0,), dtype: DTypeLike = np.float32) -> None:
        self.shape = tuple(shape)
        self.count = math.prod(self.shape)
        self.storage = Storage(self.count, dtype)
        self._memory: Memory | None = None
        self._array: Any = None  # the storage's copy there, as it was last
        self._view: Any = None  # the same in this shape

    def read(self, memory: Memory = HOST) -> Any:
        """Return the valid values in `memory`; the caller must not change them."""
        storage = self.storage
        if (memory not in storage.valid or storage.is_shown) and not storage.is_valid(memory):
            storage.make_valid(memory)
        array = storage.copies.get(memory)
        if array is None:
            array = storage.ensure(memory)
        if array is self._array and memory is self._memory:
            return self._view
        return self._make_view(memory, array)

    def write(self, memory: Memory = HOST) -> Any:
        """Return an array in `memory` that the caller overwrites in full; other copies become void."""
        array = self.storage.void(memory)
        if array is self._array and memory is self._memory:
            return self._view
        return self._make_view(memory, array)

    def join(self, memory: Memory = HOST) -> tuple[Any, bool]:
        """Return an array in `memory` for values that join those before them, and whether there are any: the caller
        adds to these, or else overwrites the array in full. Other copies become void.
        """
        if self.storage.valid:
            return self.update(memory), True
        return self.write(memory), False

    def update(self, memory: Memory = HOST) -> Any:
        """Return the valid values in `memory` for changing; other copies become void."""
        array = self.read(memory)
        if len(self.storage.valid) > 1:
            self.storage.void_others(memory)
        return array

    def show(self) -> Any:
        """Return the valid values on the host for whoever may hold and change them from now on, unasked."""
        array = self.update()
        self.storage.is_shown = True
        return array

    def refresh(self) -> None:
        """Bring the newest values to the host if somebody may be looking at the array there."""
        if self.storage.is_shown and HOST not in self.storage.valid:
            self.storage.make_valid(HOST)

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Take another shape; memory is replaced (by zeros) only if it has become too small."""
        if shape == self.shape:
            return
        self.shape = tuple(shape)
        self.count = math.prod(self.shape)
        self._forget_view()
        if self.count > self.storage.capacity:
            self.storage = Storage(self.count, self.storage.dtype, self.storage.pool)
        else:
            self.storage.drop_void()

    def share(self, other: Tensor) -> None:
        """Use the values of `other`, which has the same count, under this tensor's own shape."""
        assert self.count == other.count, f"cannot share {other.shape} as {self.shape}"
        if self.storage is not other.storage:
            self.storage = other.storage
            self._forget_view()

    def move_into(self, array: Any, memory: Memory = HOST) -> None:
        """Keep the values in the flat `array` (a slice of an arena) in `memory` from now on, also for the tensors
        that share them.
        """
        assert array.shape == (self.count,), f"a tensor of {self.count} values does not fit {array.shape}"
        array[...] = self.read(memory).reshape(-1)
        self.storage.replace(array, memory)
        self._forget_view()  # it would keep the memory that the values have left

    def _make_view(self, memory: Memory, array: Any) -> Any:
        """Return the storage's array in this shape, and keep it, unless others want memory, or it costs nothing."""
        view = memory.view(array, self.shape)
        if memory.frees_unheld and self.storage.pool is not None and memory is not self.storage.home:
            return view
        if view is not array or self._memory is None or self._memory is memory:
            self._memory, self._array, self._view = memory, array, view
        return view

    def _forget_view(self) -> None:
        self._memory = self._array = self._view = None
