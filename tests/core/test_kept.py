from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.kept import Kept
from dtrain.core.memory_pool import MemoryPool
from dtrain.core.tensor import HOST, HostMemory

ELSEWHERE = HostMemory()


def address(array: Any) -> int:
    return int(array.ctypes.data)


def written(values: float, shape: tuple[int, ...] = (2, 3), memory: HostMemory = HOST) -> Blob:
    blob = Blob(shape)
    blob.write_data(memory)[...] = values
    return blob


@pytest.mark.parametrize("memory", [HOST, ELSEWHERE])
def test_take_keeps_the_values_where_they_are_and_the_blob_writes_elsewhere(memory: HostMemory) -> None:
    blob, kept = written(5, memory=memory), Kept()
    place = address(blob.read_data(memory))
    taken = kept.take(blob.data_tensor, memory)
    blob.write_data(memory)[...] = 7
    assert address(taken) == place
    assert taken is kept.values
    np.testing.assert_array_equal(taken, np.full((2, 3), 5))
    np.testing.assert_array_equal(blob.read_data(), np.full((2, 3), 7))


def test_take_of_memory_of_its_own_uses_two_pieces_in_turn() -> None:
    blob, kept = written(0), Kept()
    places = []
    for value in range(1, 5):
        blob.write_data()[...] = value
        taken = kept.take(blob.data_tensor, HOST)
        places.append(address(taken))
        blob.write_data()[...] = -value
        kept.give_back()
        assert (taken == value).all(), "nobody else has it before the next take"
    assert places[0] == places[2] != places[1] == places[3]


def test_take_from_a_pool_borrows_until_it_is_given_back() -> None:
    pool = MemoryPool()
    blob, kept = Blob((16,)), Kept()
    blob.data_tensor.storage.borrow_from(pool)
    for _ in range(3):
        blob.write_data()[...] = 5
        taken = kept.take(blob.data_tensor, HOST)
        blob.write_data()[...] = 7
        assert pool.lent_bytes == 128
        assert (taken == 5).all()
        kept.give_back()
        assert pool.lent_bytes == 64
        assert kept.values is None
    blob.data_tensor.storage.give_back("data")
    assert pool.lent_bytes == 0
    assert pool.peak_bytes == 128


def test_take_again_without_giving_back_does_so_itself() -> None:
    pool = MemoryPool()
    blob, kept = Blob((16,)), Kept()
    blob.data_tensor.storage.borrow_from(pool)
    for value in (1, 2):
        blob.write_data()[...] = value
        taken = kept.take(blob.data_tensor, HOST)
        blob.write_data()[...] = 0
    assert (taken == 2).all()
    assert pool.lent_bytes == 128


def test_kept_that_nobody_has_any_more_gives_back() -> None:
    pool = MemoryPool()
    blob, kept = Blob((16,)), Kept()
    blob.data_tensor.storage.borrow_from(pool)
    blob.write_data()[...] = 1
    kept.take(blob.data_tensor, HOST)
    del kept
    assert pool.lent_bytes == 0


def test_take_of_an_array_that_somebody_holds_copies() -> None:
    blob, kept = Blob((2, 3)), Kept()
    held = blob.data
    held[...] = 5
    for _ in range(2):
        taken = kept.take(blob.data_tensor, HOST)
        blob.write_data()[...] = 7
        assert (taken == 5).all()
        assert (held == 7).all()
        held[...] = 5
    assert blob.data is held


def test_take_of_an_array_in_an_arena_copies() -> None:
    blob, kept, arena = written(5), Kept(), np.zeros(6, np.float32)
    blob.data_tensor.move_into(arena)
    taken = kept.take(blob.data_tensor, HOST)
    blob.write_data()[...] = 7
    assert (taken == 5).all()
    assert (arena == 7).all()


def test_take_shows_tensors_that_share_the_values_what_is_written_then() -> None:
    blob, view, kept = written(5), Blob((6,)), Kept()
    view.share_data(blob)
    assert (view.read_data() == 5).all()
    taken = kept.take(blob.data_tensor, HOST)
    blob.write_data()[...] = 7
    assert (view.read_data() == 7).all()
    assert (taken == 5).all()


def test_take_of_another_size_than_before_has_memory_for_it() -> None:
    blob, kept = written(5, (4,)), Kept()
    for size in (4, 9, 2, 30):
        blob.reshape(size)
        blob.write_data()[...] = size
        taken = kept.take(blob.data_tensor, HOST)
        assert taken.shape == (size,)
        blob.write_data()[...] = 0
        assert (taken == size).all()
        assert (blob.read_data() == 0).all()


def test_room_is_the_pools_until_it_is_given_back() -> None:
    pool = MemoryPool()
    blob, kept = Blob((16,)), Kept()
    blob.data_tensor.storage.borrow_from(pool)
    assert kept.room(blob.data_tensor.storage, 100).nbytes == 100
    assert kept.room(blob.data_tensor.storage, 200).nbytes == 200
    assert pool.lent_bytes == 256
    kept.give_back()
    assert pool.lent_bytes == 0


def test_room_without_a_pool_is_used_again_while_it_is_as_large() -> None:
    storage, kept = Blob((16,)).data_tensor.storage, Kept()
    first = kept.room(storage, 100)
    kept.give_back()
    assert kept.room(storage, 100) is first
    assert kept.room(storage, 50).nbytes == 50
