"""Tests of data/hash64.py."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.data.hash64 import Purpose, draw_below, hash64

WORD = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """The published generator's output after one step from `state`, in Python's own integers."""
    z = (state + 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def reference_hash(*words: int) -> int:
    mixed = 0
    for word in words:
        mixed = splitmix64(mixed ^ word)
    return mixed


def test_splitmix64_from_zero_is_the_published_value() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("seed", [0, 1, WORD, -1, 1 << 70])
def test_hash64_of_arrays_equals_the_reference(seed: int) -> None:
    epochs, indices = np.array([0, 0, 7, 1 << 40]), np.array([0, 5, 5, 1 << 50])
    expected = [
        reference_hash(seed & WORD, Purpose.MIRROR, epoch, index)
        for epoch, index in zip(epochs.tolist(), indices.tolist(), strict=True)
    ]
    assert hash64(seed, Purpose.MIRROR, epochs, indices).tolist() == expected


def test_hash64_of_another_purpose_or_seed_differs() -> None:
    records = np.zeros(100, np.int64), np.arange(100)
    draws = [hash64(seed, purpose, *records) for seed in (1, 2) for purpose in Purpose]
    assert len(np.unique(np.concatenate(draws))) == 100 * len(draws)


@pytest.mark.parametrize("limit", [1, 2, 3, 30, 256])
def test_draw_below_of_many_is_uniform(limit: int) -> None:
    drawn = draw_below(hash64(3, Purpose.CROP_ROW, 0, np.arange(60_000)), limit)
    counts = np.bincount(drawn, minlength=limit)
    assert len(counts) == limit
    expected = 60_000 / limit
    assert np.abs(counts - expected).max() <= 6 * np.sqrt(expected)


def test_draw_below_of_extreme_bits_stays_inside() -> None:
    bits = np.array([0, WORD], np.uint64)
    assert draw_below(bits, 30).tolist() == [0, 29]
