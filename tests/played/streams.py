"""A look at who waits for whom between a played device's streams: finds copies over memory that is still in use.

The current stream's work is done at once, so a missing wait would have no consequence. On a GPU it is done later:
what a copy on another stream may overwrite is known by the events that this stream has waited for, by nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.played import cupy as played_cupy
from tests.played import kernels as played_kernels
from tests.played.cupy import DeviceArray, PlayedCupy
from tests.played.graphs import Event, Stream, root_of


class Overtaken(RuntimeError):
    """A copy did not wait for what was to be done before with the same memory."""


class Watch:
    """Counts the current stream's steps, and knows which of them events and other streams are behind."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.num_copies = 0
        self._last_use: dict[int, int] = {}  # by memory
        self._roots: list[np.ndarray] = []  # alive, lest numbers come again
        self._behind: dict[Event | Stream, int] = {}

    def use(self, array: Any) -> None:
        """Note that the current stream reads or makes an array."""
        if isinstance(array, DeviceArray):
            self.num_steps += 1
            root = root_of(array._values)
            self._roots.append(root)
            self._last_use[id(root)] = self.num_steps

    def record(self, event: Event, stream: Stream) -> None:
        """Note what an event is behind."""
        self._behind[event] = self.num_steps if stream is Stream.current() else self._behind.get(stream, 0)

    def wait(self, stream: Stream, event: Event) -> None:
        """Note what a stream is behind from now on."""
        self._behind[stream] = max(self._behind.get(stream, 0), self._behind.get(event, 0))

    def copy(self, target: DeviceArray, stream: Stream) -> None:
        """Raise Overtaken if `stream` may overwrite `target` too early."""
        self.num_copies += 1
        last = self._last_use.get(id(root_of(target._values)), 0)
        if last > self._behind.get(stream, 0):
            raise Overtaken("a copy must wait for what the current stream had to do with its memory")


def watch_streams(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Watch all arrays, events and streams that are made and used from now on."""
    watch = Watch()
    unwrap, c_value, empty = played_cupy._unwrap, played_kernels._c_value, PlayedCupy.empty
    record, wait, copy = Event.record, Stream.wait_event, DeviceArray.set

    def watched_unwrap(value: Any) -> Any:
        watch.use(value)
        return unwrap(value)

    def watched_c_value(arg: Any, type_name: str) -> Any:
        watch.use(arg)
        return c_value(arg, type_name)

    def watched_empty(cupy: PlayedCupy, shape: Any, dtype: Any = float) -> DeviceArray:
        array = empty(cupy, shape, dtype)
        watch.use(array)
        return array

    def watched_record(event: Event, stream: Stream | None = None) -> None:
        watch.record(event, stream or Stream.current())
        record(event, stream)

    def watched_wait(stream: Stream, event: Event) -> None:
        watch.wait(stream, event)
        wait(stream, event)

    def watched_copy(array: DeviceArray, arr: np.ndarray, stream: Stream | None = None) -> None:
        if stream not in (None, Stream.current()):
            watch.copy(array, stream)
        copy(array, arr, stream)

    monkeypatch.setattr(played_cupy, "_unwrap", watched_unwrap)
    monkeypatch.setattr(played_kernels, "_c_value", watched_c_value)
    monkeypatch.setattr(PlayedCupy, "empty", watched_empty)
    monkeypatch.setattr(Event, "record", watched_record)
    monkeypatch.setattr(Stream, "wait_event", watched_wait)
    monkeypatch.setattr(DeviceArray, "set", watched_copy)
    return watch
