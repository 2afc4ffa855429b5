"""Streams, events, private memory and graphs of played devices, as CUDA and cupy have them.

What is computed while a stream captures is done at once, for its shapes and errors, and put back in the end: nothing
has happened then, what was made holds garbage, and what a graph has recorded happens at each launch, on the same
memory. As strict as a GPU: a host that looks or waits in between is refused, memory that somebody has given back in
the meantime is an error unless it is of the private pool that the graph was captured with, and streams that join in
must come back. What comes to pinned memory behind the caller is there once an event says so.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from tests.played.host_traffic import forbid_host, refuse_host

Action = Callable[[], object]


class CudaError(RuntimeError):
    """What CUDA's calls raise."""


class _Here(threading.local):
    """A rank's own: its capture, its current stream, its allocator's pool, its device memory."""

    capture: _Capture | None = None
    stream: Stream | None = None
    pool: MemoryPool | None = None

    def __init__(self) -> None:
        self.roots: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()


_here = _Here()


def record(action: Action) -> bool:
    """Have `action` done at each launch of the graph that this thread captures; return whether there is one."""
    if _here.capture is None:
        return False
    _here.capture.actions.append(action)
    return True


def root_of(values: np.ndarray) -> np.ndarray:
    """Return the array whose memory a view shows."""
    while isinstance(values.base, np.ndarray):
        values = values.base
    return values


def enter_memory(values: np.ndarray) -> None:
    """Count the memory of `values` as this thread's device memory."""
    root = root_of(values)
    if id(root) not in _here.roots:
        _here.roots[id(root)] = root
        if _here.pool is not None:
            _here.pool.pieces.append(root)


def repeat(function: Callable[..., Any], args: Any, kwargs: Any, made: Any) -> None:
    """Record a call of numpy's that has given the arrays `made`: launches fill those that are no views again."""
    if _here.capture is None:
        return
    owner = getattr(function, "__self__", None)
    call: Any = function
    if isinstance(owner, np.ndarray):
        name, place = function.__name__, Place(owner)
        call = lambda *args, **kwargs: getattr(place.array(), name)(*args, **kwargs)  # noqa: E731
    given = [root_of(array) for array in _arrays_in((owner, args, kwargs))]
    targets = [
        None if any(root_of(array) is root for root in given) else Place(array) for array in _arrays_in(made)
    ]
    places = _swap(args, np.ndarray, Place), _swap(kwargs, np.ndarray, Place)

    def again() -> None:
        args, kwargs = (_swap(each, Place, Place.array) for each in places)
        found = call(*args, **kwargs)
        found = found if isinstance(found, tuple | list) else [found]
        for target, values in zip(targets, found, strict=False):
            if target is not None:
                target.array()[...] = values

    record(again)


class Place:
    """Where the values of an array lie, which it does not keep alive: what a graph knows of them."""

    def __init__(self, array: np.ndarray) -> None:
        self.__array_interface__ = {key: array.__array_interface__[key] for key in array.__array_interface__}
        self._dtype = array.dtype
        self._root = weakref.ref(root_of(array))

    def array(self) -> np.ndarray:
        """Return the array. Raises CudaError if the memory is somebody else's."""
        if self._root() is None:
            raise CudaError("cudaErrorIllegalAddress: a graph was launched whose memory was given back")
        return np.asarray(self).view(self._dtype)


def _swap(value: Any, kind: type, swap: Callable[[Any], Any]) -> Any:
    """Return `value` with what is of a kind in it replaced."""
    if isinstance(value, kind):
        return swap(value)
    if isinstance(value, tuple | list):
        return type(value)(_swap(item, kind, swap) for item in value)
    if isinstance(value, dict):
        return {key: _swap(item, kind, swap) for key, item in value.items()}
    return value


def _arrays_in(value: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    _swap(value, np.ndarray, found.append)
    return found


class _Capture:
    """What a thread records, and the device memory as it was before."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.joined: set[Stream] = set()
        self._before = {key: (root, root.copy()) for key, root in list(_here.roots.items())}
        self._guard = ExitStack()
        self._guard.enter_context(forbid_host())

    def end(self) -> None:
        self._guard.close()
        for key, root in list(_here.roots.items()):
            if key in self._before:
                root[...] = self._before[key][1]
            else:
                root.fill(77 if root.dtype.kind in "biu" else np.nan)


class Graph:
    """cupy.cuda.Graph."""

    num_launches = 0

    def __init__(self, actions: Sequence[Action], pool: MemoryPool | None) -> None:
        self._actions, self._pool = actions, weakref.ref(pool or MemoryPool())

    def launch(self, stream: Stream | None = None) -> None:
        refuse_host("the launch of a graph")
        self.num_launches += 1
        for action in self._actions:
            action()

    def upload(self, stream: Stream | None = None) -> None:
        refuse_host("the upload of a graph")


class Stream:
    """cupy.cuda.Stream, whose work is done at once but for copies to pinned memory."""

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.ptr = 0 if null else id(self)
        self.late: list[Action] = []
        self._captures = False
        self._left: list[Stream | None] = []

    @classmethod
    def current(cls) -> Stream:
        """Return this thread's current stream, at first CUDA's default one."""
        return _here.stream or NULL

    def begin_capture(self, mode: int | None = None) -> None:
        if self is NULL:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if _here.capture is not None:
            raise CudaError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        self._captures = True
        _here.capture = _Capture()

    def end_capture(self) -> Graph:
        capture = _here.capture
        if capture is None or not self._captures:
            raise CudaError("cudaErrorIllegalState: the stream captures nothing")
        self._captures, _here.capture = False, None
        capture.end()
        if capture.joined:
            raise CudaError("cudaErrorStreamCaptureUnjoined: capturing stream has unjoined work")
        return Graph(capture.actions, _here.pool)

    def is_capturing(self) -> bool:
        return self._captures or (_here.capture is not None and self in _here.capture.joined)

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        capture = _here.capture
        if capture is not None and event.is_captured:
            if self._captures:
                capture.joined.discard(event.stream)
            else:
                capture.joined.add(self)
        else:
            event.let_happen()

    def put_off(self, action: Action) -> None:
        """Do `action`, once, when somebody waits for it: the stream, or an event behind it."""

        def do_once() -> None:
            if do_once in self.late:
                self.late.remove(do_once)
                action()

        self.late.append(do_once)

    def synchronize(self) -> None:
        refuse_host("synchronize of a stream")
        _do_all(self.late)

    @property
    def done(self) -> bool:
        refuse_host("a query of a stream")
        _do_all(self.late)
        return True

    def use(self) -> Stream:
        _here.stream = self
        return self

    def __enter__(self) -> Stream:
        self._left.append(_here.stream)
        return self.use()

    def __exit__(self, *error: object) -> None:
        _here.stream = self._left.pop()


NULL = Stream(null=True)


class Event:
    """cupy.cuda.Event."""

    by_ptr: weakref.WeakValueDictionary[int, Event] = weakref.WeakValueDictionary()

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.ptr = id(self)
        self.by_ptr[self.ptr] = self
        self.is_captured = False
        self.stream = NULL
        self._late: list[Action] = []

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or Stream.current()
        self.is_captured = self.stream.is_capturing()
        self._late = list(self.stream.late)

    def let_happen(self) -> None:
        """Do what lies before it."""
        _do_all(self._late)

    @property
    def done(self) -> bool:
        self.synchronize()
        return True

    def synchronize(self) -> None:
        refuse_host("a wait for an event")
        if self.is_captured:
            raise CudaError(
                "cudaErrorCapturedEvent: operation not permitted on an event last recorded in a capture"
            )
        _do_all(self._late)


def _do_all(late: list[Action]) -> None:
    for action in list(late):
        action()


class MemoryPool:
    """cupy.cuda.MemoryPool: what was taken from it stays as it is while the pool is there."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []

    def malloc(self, size: int) -> Any:
        raise NotImplementedError("played arrays make their own memory")

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        refuse_host("giving memory back")

    def total_bytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    def free_bytes(self) -> int:
        return 0


@contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    """Let arrays have their memory from the pool whose `malloc` this is."""
    before, _here.pool = _here.pool, allocator.__self__
    try:
        yield
    finally:
        _here.pool = before
