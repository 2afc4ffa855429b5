"""cupy.cuda.nccl for want of GPUs: ranks are threads, calls get real addresses, so counts and types must be right.

When a call does its work is the played stream's affair: fake_cupy.py in tests/dist has streams that work later, the
devices of this folder do it at once or at each launch of a graph.
"""

from __future__ import annotations

import ctypes
import itertools
import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from dtrain.dist.meeting import Meeting
from tests.played.graphs import record

# cupy 14.2's numbers; test_nccl.py compares them with an installed cupy's.
TYPES = {"UINT8": 1, "INT64": 4, "FLOAT16": 6, "FLOAT32": 7, "FLOAT64": 8, "BFLOAT16": 9}
NCCL_SUM = 0
VERSION = 23203

_DETAILS = "(run with NCCL_DEBUG={} for details)"
ERRORS = {
    1: f"NCCL_ERROR_UNHANDLED_CUDA_ERROR: unhandled cuda error {_DETAILS.format('INFO')}",
    2: f"NCCL_ERROR_SYSTEM_ERROR: unhandled system error {_DETAILS.format('INFO')}",
    3: "NCCL_ERROR_INTERNAL_ERROR: internal error - please report this issue to the NCCL developers",
    4: f"NCCL_ERROR_INVALID_ARGUMENT: invalid argument {_DETAILS.format('WARN')}",
    5: f"NCCL_ERROR_INVALID_USAGE: invalid usage {_DETAILS.format('WARN')}",
    6: "NCCL_ERROR_REMOTE_ERROR: remote process exited or there was a network error",
}

LATE_S = 60.0  # what a call may wait for other ranks; the safety net against a test that hangs

# give(stream, work): has `work` done in a stream, which is named by its address.
Give = Callable[[int, Callable[[], None]], object]

_group = threading.local()  # each rank's calls since groupStart
_ids = itertools.count()


class NcclError(RuntimeError):
    """What NCCL's calls raise: for numbers that cupy does not know a KeyError."""

    def __init__(self, status: int) -> None:
        super().__init__(ERRORS[status])
        self.status = status


class NcclCommunicator:
    """NCCL's communicator: ranks that were given the same id meet. `_give` says when calls do their work."""

    _give: Give
    _check_device: Callable[[], None]
    meetings: dict[bytes, Meeting] = {}
    mail: defaultdict[tuple[bytes, int, int], queue.SimpleQueue[np.ndarray]] = defaultdict(queue.SimpleQueue)

    def __init__(self, ndev: int, commId: bytes, rank: int, config: Any = None) -> None:
        assert len(commId) == 128
        self._check_device()
        self._id, self._rank = commId, rank
        self._meeting = self.meetings.setdefault(commId, Meeting(ndev))
        self.is_aborted = self.is_destroyed = False
        self.async_error: Exception | None = None
        self._meeting.swap(rank, "init", None)

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        assert op == NCCL_SUM
        call = f"allReduce {count} {datatype}"

        def work() -> None:
            parts = self._meeting.swap(self._rank, call, view(sendbuf, count, datatype).copy())
            total = parts[-1]  # NCCL promises no order, and rounds at each step
            for part in parts[-2::-1]:
                total = (total + part).astype(total.dtype)
            view(recvbuf, count, datatype)[...] = total

        self._give(stream, work)

    def reduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, root: int, stream: int
    ) -> None:
        assert op == NCCL_SUM

        def work() -> None:
            call = f"reduce {count} {datatype} {root}"
            parts = self._meeting.swap(self._rank, call, view(sendbuf, count, datatype).copy())
            if self._rank == root:
                total = parts[-1]
                for part in parts[-2::-1]:
                    total = (total + part).astype(total.dtype)
                view(recvbuf, count, datatype)[...] = total

        self._give(stream, work)

    def broadcast(
        self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int
    ) -> None:
        def work() -> None:
            call = f"broadcast {count} {datatype} {root}"
            parts = self._meeting.swap(self._rank, call, view(sendbuff, count, datatype).copy())
            view(recvbuff, count, datatype)[...] = parts[root]

        self._give(stream, work)

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        def work() -> None:
            call = f"allGather {count} {datatype}"
            parts = self._meeting.swap(self._rank, call, view(sendbuf, count, datatype).copy())
            view(recvbuf, count * len(parts), datatype)[...] = np.concatenate(parts)

        self._give(stream, work)

    def reduceScatter(
        self, sendbuf: int, recvbuf: int, recvcount: int, datatype: int, op: int, stream: int
    ) -> None:
        assert op == NCCL_SUM

        def work() -> None:
            call, count = f"reduceScatter {recvcount} {datatype}", recvcount * self._meeting.num_ranks
            parts = self._meeting.swap(self._rank, call, view(sendbuf, count, datatype).copy())
            own = slice(self._rank * recvcount, (self._rank + 1) * recvcount)
            total = parts[-1][own]
            for part in parts[-2::-1]:
                total = (total + part[own]).astype(total.dtype)
            view(recvbuf, recvcount, datatype)[...] = total

        self._give(stream, work)

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        assert count > 0

        def work() -> None:
            self.mail[self._id, self._rank, peer].put(view(sendbuf, count, datatype).copy())

        _group.sends.append((self, stream, work))

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        assert count > 0

        def work() -> None:
            part = self.mail[self._id, peer, self._rank].get(timeout=LATE_S)
            into = view(recvbuf, count, datatype)
            assert (into.size, into.dtype) == (part.size, part.dtype)
            into[...] = part

        _group.receives.append((self, stream, work))

    def check_async_error(self) -> None:
        if self.async_error is not None:
            raise self.async_error

    def abort(self) -> None:
        self.is_aborted = True
        self._meeting.break_up("aborted")

    def destroy(self) -> None:
        self.is_destroyed = True


def group_start() -> None:
    _group.sends, _group.receives = [], []


def group_end() -> None:
    for communicator, stream, work in [*_group.sends, *_group.receives]:  # so that none waits for its own
        communicator._give(stream, work)


def get_unique_id() -> bytes:
    return next(_ids).to_bytes(128, "big")


def view(ptr: int, count: int, datatype: int) -> np.ndarray:
    """Return the elements at an address."""
    name = next(name for name, number in TYPES.items() if number == datatype).lower()
    dtype = np.dtype(bfloat16) if name == "bfloat16" else np.dtype(name)
    raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(ptr)
    return np.frombuffer(raw, np.uint8).view(dtype)


def make_nccl(give: Give, check_device: Callable[[], None] = lambda: None) -> SimpleNamespace:
    """Return the module cupy.cuda.nccl of devices whose streams are given their work by `give`.

    check_device: looks, in a rank's thread that makes a communicator, whether that has a GPU.
    """
    methods = {"_give": staticmethod(give), "_check_device": staticmethod(check_device)}
    return SimpleNamespace(
        available=True,
        NCCL_SUM=NCCL_SUM,
        NcclError=NcclError,
        NcclCommunicator=type("NcclCommunicator", (NcclCommunicator,), methods),
        get_version=lambda: VERSION,
        get_unique_id=get_unique_id,
        groupStart=group_start,
        groupEnd=group_end,
        **{f"NCCL_{name}": number for name, number in TYPES.items()},
    )


def give_or_record(stream: int, work: Callable[[], None]) -> None:
    """Do `work` at once, or, in a thread that captures, at each launch of the graph."""
    if not record(work):
        work()


def join_nccl(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> None:
    """Let a played cupy (tests/played/cupy.py) have NCCL, and dist/ find it."""
    cupy.cuda.nccl = make_nccl(give_or_record)
    monkeypatch.setattr("dtrain.dist.nccl.load_nccl", lambda: cupy)
    monkeypatch.setattr("dtrain.dist.wire.load_cupy", lambda: cupy)
