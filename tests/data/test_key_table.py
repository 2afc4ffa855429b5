"""Tests of data/key_table.py."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.key_table import STAMP_BYTES, KeyTable, pack_keys

STAMP = bytes(range(STAMP_BYTES))
KEYS = st.lists(st.binary(min_size=1, max_size=9), max_size=20)


def packed(keys: Sequence[bytes]) -> bytes:
    out = io.BytesIO()
    pack_keys(keys, STAMP, out)
    return out.getvalue()


@given(keys=KEYS | st.lists(st.binary(min_size=4, max_size=4), max_size=20))
def test_key_table_of_packed_keys_finds_each_by_number(keys: list[bytes]) -> None:
    table = KeyTable(memoryview(packed(keys)))
    assert list(table) == keys
    assert (len(table), table.stamp) == (len(keys), STAMP)
    with pytest.raises(IndexError):
        table[len(keys)]
    with pytest.raises(IndexError):
        table[-1]


def test_pack_keys_of_many_takes_them_a_few_at_a_time_and_keeps_all() -> None:
    keys = [b"%d" % number for number in range(50_000)]
    table = KeyTable(memoryview(packed(keys)))
    assert [table[number] for number in (0, 9, 10, 16_383, 16_384, 49_999)] == [
        *(b"0", b"9", b"10", b"16383", b"16384", b"49999")
    ]
    assert list(table) == keys


def test_pack_keys_of_one_length_takes_no_more_than_the_keys() -> None:
    one, two = (len(packed([b"%08d" % number for number in range(count)])) for count in (1000, 2000))
    assert two - one == 1000 * 8


@pytest.mark.parametrize("keys", [[b"a", b"bc", b"def"], [b"ab", b"cd"]])
def test_key_table_of_any_damage_raises(keys: list[bytes]) -> None:
    good = packed(keys)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 0x10
        with pytest.raises(ValueError, match="as they were written"):
            KeyTable(memoryview(bytes(bad)))
    for size in range(len(good)):
        with pytest.raises(ValueError, match="keys must"):
            KeyTable(memoryview(good[:size]))
    with pytest.raises(ValueError, match="as they were written"):
        KeyTable(memoryview(good + b"x"))
