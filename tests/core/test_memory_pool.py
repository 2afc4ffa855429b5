"""The pool: pieces are nobody else's, gaps are used again and grow together, and peaks are what they must be."""

from __future__ import annotations

import gc
import mmap
import weakref
from typing import Any

import numpy as np
import pytest

from dtrain.core import memory_pool
from dtrain.core.memory_pool import Gaps, MemoryPool

KB = 1024


def test_lend_gives_pieces_of_the_asked_size_on_cache_lines() -> None:
    pool = MemoryPool()
    for num_bytes in (1, 64, 100, 4096, 0):
        piece = pool.lend(num_bytes)
        assert (piece.nbytes, piece.dtype) == (num_bytes, np.uint8)
        assert piece.ctypes.data % 64 == 0


def test_lend_never_gives_bytes_that_are_lent_by_a_model_of_every_byte() -> None:
    random, pool = np.random.default_rng(3), MemoryPool()
    owners: dict[int, np.ndarray] = {}
    for turn in range(3000):
        if owners and random.random() < 0.48:
            key = random.choice(list(owners))
            piece = owners.pop(key)
            assert (piece == key % 251).all(), "somebody wrote into a piece that is lent"
            pool.give_back(piece)
        else:
            owners[turn] = pool.lend(int(random.integers(1, 5000)))
            owners[turn][...] = turn % 251
    assert pool.lent_bytes == sum(-(-piece.nbytes // 64) * 64 for piece in owners.values())


def first_gap(is_free: np.ndarray, num_lines: int) -> int:
    """Return where the first row of so many free lines begins, looked for line by line."""
    return next(k for k in range(is_free.size) if is_free[k : k + num_lines].all())


def test_lend_takes_the_first_gap_also_where_it_remembers_by_a_model_of_every_line() -> None:
    random, pool, is_free = np.random.default_rng(5), MemoryPool(), np.ones(1000, bool)
    first = pool.lend(64)
    pool.give_back(first)
    lent: list[np.ndarray] = []
    for _ in range(3000):  # of so few sizes that most states come again
        if lent and random.random() < 0.5:
            piece = lent.pop(random.integers(len(lent)))
            begin = (piece.ctypes.data - first.ctypes.data) // 64
            is_free[begin : begin + -(-piece.nbytes // 64)] = True
            pool.give_back(piece)
        elif len(lent) < 5:
            num_lines = int(random.integers(1, 4))
            begin = first_gap(is_free, num_lines)
            lent.append(pool.lend(num_lines * 64))
            assert (lent[-1].ctypes.data - first.ctypes.data) // 64 == begin
            is_free[begin : begin + num_lines] = False


def test_lend_and_give_back_of_a_cycle_that_is_known_work_out_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = MemoryPool()

    def cycle() -> list[np.ndarray]:
        x, y = pool.lend(100, np.uint8), pool.lend(200, np.float32)
        pool.give_back(x)
        z = pool.lend(64)
        pool.give_back(y)
        pool.give_back(z)
        return [x, y, z]

    cycle()  # in which memory is reserved, too
    before = cycle()
    monkeypatch.setattr(Gaps, "cut", None)
    monkeypatch.setattr(Gaps, "join", None)
    assert all(x is y for x, y in zip(before, cycle(), strict=True))
    assert (pool.lent_bytes, pool.peak_bytes) == (0, 128 + 256)


def test_give_back_makes_neighbouring_gaps_one() -> None:
    pool = MemoryPool()
    pieces = [pool.lend(KB) for _ in range(4)]
    first = pieces[0].ctypes.data
    for k in (0, 2, 1):  # the last one joins a gap on each side
        pool.give_back(pieces[k])
    assert pool.lend(3 * KB).ctypes.data == first
    assert pool.peak_bytes == 4 * KB


def test_lend_takes_the_first_gap_that_is_large_enough() -> None:
    pool = MemoryPool()
    small, wall, large, _ = pool.lend(KB), pool.lend(KB), pool.lend(4 * KB), pool.lend(KB)
    places = small.ctypes.data, wall.ctypes.data, large.ctypes.data
    pool.give_back(large)
    pool.give_back(small)
    assert pool.lend(2 * KB).ctypes.data == places[2]
    assert pool.lend(KB).ctypes.data == places[0]


def test_peak_bytes_is_where_the_farthest_piece_ended() -> None:
    pool = MemoryPool()
    for piece in [pool.lend(100) for _ in range(3)]:  # 128 bytes each
        pool.give_back(piece)
    assert (pool.lent_bytes, pool.peak_bytes) == (0, 3 * 128)
    pool.lend(200)
    assert pool.peak_bytes == 3 * 128


def test_lend_of_the_same_bytes_again_gives_the_same_array_for_each_type() -> None:
    pool = MemoryPool()
    first = pool.lend(400, np.float32)
    assert (first.dtype, first.size) == (np.float32, 100)
    pool.give_back(first)
    assert pool.lend(400, np.float32) is first
    pool.give_back(first)
    second = pool.lend(400)
    assert (second.dtype, second.ctypes.data) == (np.uint8, first.ctypes.data)


def test_pool_of_pieces_of_ever_new_sizes_forgets_old_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_pool, "_MOST_STEPS", 8)
    pool, kept = MemoryPool(), []
    for num_bytes in range(1, 100):
        piece = pool.lend(num_bytes)
        kept.append(weakref.ref(piece))
        pool.give_back(piece)
    del piece
    assert sum(array() is not None for array in kept) <= 8
    assert pool.lent_bytes == 0


def test_pool_that_nobody_has_any_more_lets_go_of_its_arrays_at_once() -> None:
    pool = MemoryPool()
    piece = pool.lend(KB)
    pool.give_back(piece)
    found = weakref.ref(piece)
    gc.disable()
    try:
        del pool, piece
        assert found() is None
    finally:
        gc.enable()


def test_put_off_has_each_call_once_at_the_next_catch_up() -> None:
    pool, calls = MemoryPool(), []

    def give_back() -> None:
        calls.append("given back")

    for _ in range(2):
        pool.put_off(give_back)
    assert calls == []
    pool.catch_up()
    pool.catch_up()
    assert calls == ["given back"]


def test_lend_beyond_what_is_reserved_takes_more_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_pool, "_RESERVED_BYTES", 16 * KB)
    pool = MemoryPool()
    pieces = [pool.lend(num_bytes * KB) for num_bytes in (10, 10, 40)]
    for k, piece in enumerate(pieces):
        piece[...] = k
    assert [piece[0] == k and piece[-1] == k for k, piece in enumerate(pieces)] == [True] * 3
    assert pool.peak_bytes == 60 * KB
    for piece in pieces:
        pool.give_back(piece)
    assert pool.lent_bytes == 0


def test_lend_where_addresses_are_limited_reserves_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = mmap.mmap

    def limited(fileno: int, num_bytes: int, **flags: Any) -> mmap.mmap:
        if num_bytes > KB * KB:
            raise OSError(12, "Cannot allocate memory")
        return real(fileno, num_bytes, **flags)

    monkeypatch.setattr(mmap, "mmap", limited)
    pool = MemoryPool()
    assert pool.lend(KB).nbytes == KB
    with pytest.raises(MemoryError, match="can't reserve 2097152 bytes for the values of a net"):
        pool.lend(2 * KB * KB)


def test_has_lent_knows_a_piece_until_it_is_given_back() -> None:
    pool = MemoryPool()
    piece = pool.lend(64)
    assert pool.has_lent(piece)
    assert not pool.has_lent(piece[:])
    assert not MemoryPool().has_lent(piece)
    pool.give_back(piece)
    assert not pool.has_lent(piece)


def test_give_back_of_what_was_not_lent_is_a_bug() -> None:
    with pytest.raises(KeyError):
        MemoryPool().give_back(np.zeros(64, np.uint8))
