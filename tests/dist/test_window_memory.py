from __future__ import annotations

import errno
import gc
import os
import weakref
from typing import Any

import numpy as np
import pytest

from dtrain.dist.communicator import DTYPES
from dtrain.dist.window_memory import NOWHERE, PAGE_BYTES, WindowError, WindowMemory, address_of
from tests.dist.host_of_threads import ThreadsComm, run_on_host


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("part_bytes", [0, 1, PAGE_BYTES, PAGE_BYTES + 1])
def test_memory_is_zeros_and_what_one_rank_writes_all_read(num_ranks: int, part_bytes: int) -> None:
    def body(comm: ThreadsComm) -> None:
        memory = WindowMemory(comm, part_bytes)
        own = memory.take()
        assert own.shape == (part_bytes,)
        assert not own.any()
        assert own.ctypes.data % PAGE_BYTES == 0
        comm.allgather("all have looked at their zeros")
        own[...] = comm.Get_rank() + 1
        comm.allgather("all have written")
        assert [set(part.tolist()) for part in memory.parts()] == [
            {rank + 1} if part_bytes else set() for rank in range(num_ranks)
        ]

    run_on_host(num_ranks, body)


def test_start_of_finds_what_lies_inside_this_ranks_part() -> None:
    def body(comm: ThreadsComm) -> None:
        memory = WindowMemory(comm, 400)
        own = memory.take()
        address = own.ctypes.data
        assert memory.start_of(address, 400) == 0
        assert memory.start_of(address + 28, 372) == 28
        assert memory.start_of(address + 28, 373) == NOWHERE
        assert memory.start_of(address - 1, 4) == NOWHERE
        assert memory.start_of(np.zeros(4).ctypes.data, 32) == NOWHERE
        other = memory.parts()[1 - comm.Get_rank()]
        assert memory.start_of(other.ctypes.data, 400) == NOWHERE

    run_on_host(2, body)


def test_memory_is_mapped_as_long_as_an_array_looks_into_it_and_no_longer() -> None:
    def body(comm: ThreadsComm) -> None:
        memory = WindowMemory(comm, 400)
        values = memory.take().view(np.float32)[3:]
        mapping = weakref.ref(values.base)
        del memory
        gc.collect()
        values[...] = 5
        assert values.sum() == 97 * 5
        assert mapping() is not None
        del values
        gc.collect()
        assert mapping() is None

    run_on_host(2, body)


def test_rows_that_are_kept_neither_keep_the_memory_nor_outlive_it() -> None:
    def body(comm: ThreadsComm) -> None:
        memory = WindowMemory(comm, 400)
        values = memory.take().view(np.float32)
        memory.kept["rows"] = memory.rows(0, 100, values.dtype)
        mapping = weakref.ref(memory.kept["rows"].base)
        del values
        gc.collect()
        assert not memory.kept
        assert mapping() is None

    run_on_host(2, body)


def test_rows_are_what_all_ranks_have_at_the_same_place() -> None:
    def body(comm: ThreadsComm) -> None:
        memory = WindowMemory(comm, 400)
        values = memory.take().view(np.float32)
        values[...] = 100 * comm.Get_rank() + np.arange(100)
        comm.allgather("all have written")
        assert memory.rows(28, 3, values.dtype).tolist() == [[7, 8, 9], [107, 108, 109]]
        comm.allgather("all have read")

    run_on_host(2, body)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_address_of_is_where_the_elements_begin(dtype: np.dtype[Any]) -> None:
    array = np.zeros((5, 3), dtype)
    for view in (array, array[2:], array[3, 1, ...]):
        assert address_of(view) == view.ctypes.data


def test_start_of_in_memory_that_is_gone_finds_nothing() -> None:
    def body(comm: ThreadsComm) -> None:
        memory = WindowMemory(comm, 400)
        array = memory.take()
        address = array.ctypes.data
        assert memory.start_of(address, 4) == 0
        del array
        gc.collect()
        assert memory.start_of(address, 4) == NOWHERE

    run_on_host(1, body)


@pytest.mark.parametrize("num_bytes", [1, 4096, 8192, 2**20])
def test_parts_are_an_odd_number_of_pages_apart(num_bytes: int) -> None:
    def body(comm: ThreadsComm) -> int:
        parts = WindowMemory(comm, num_bytes).parts()
        return int(parts[1].ctypes.data - parts[0].ctypes.data)

    for distance in run_on_host(2, body):
        assert distance >= num_bytes
        assert distance % (2 * PAGE_BYTES) == PAGE_BYTES


def test_memory_that_one_rank_cannot_have_is_an_error_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(file: int, start: int, size: int) -> None:
        if start:  # the second rank's part
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)

    def body(comm: ThreadsComm) -> str:
        with pytest.raises(WindowError) as raised:
            WindowMemory(comm, 5000)
        return str(raised.value)

    message = (
        "rank 1 of the host cannot have 24,592 bytes of common memory: [Errno 28] No space left on device"
    )
    assert run_on_host(2, body) == [message] * 2


def test_memory_without_memfd_is_an_error_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")

    def body(comm: ThreadsComm) -> None:
        with pytest.raises(WindowError, match="rank 0 .*: this system has no memfd_create"):
            WindowMemory(comm, 100)

    run_on_host(2, body)


def test_memory_of_another_process_under_the_same_path_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ranks in containers of their own may find another process under the first rank's number.
    def body(comm: ThreadsComm) -> None:
        if comm.Get_rank() == 1:
            bcast = comm.bcast

            def with_other_token(value: object) -> tuple[str, bytes]:
                path, token = bcast(value)
                return path, bytes(len(token))

            monkeypatch.setattr(comm, "bcast", with_other_token)
        with pytest.raises(WindowError, match=r"rank 1 .* are all ranks in one container\?"):
            WindowMemory(comm, 100)

    run_on_host(2, body)
