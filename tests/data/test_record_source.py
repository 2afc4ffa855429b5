"""Tests of data/record_source.py."""

from __future__ import annotations

from dtrain.data.record_source import RecordSource


class Letters(RecordSource):
    """A source of three records, as short as one can be."""

    path = "letters"

    def __len__(self) -> int:
        return 3

    def read(self, index: int) -> memoryview:
        return memoryview(b"abc")[index : index + 1]

    def key(self, index: int) -> str:
        return str(index)

    def describe(self) -> str:
        return "letters"

    def close(self) -> None: ...


def test_read_batch_of_a_source_that_reads_singly_reads_each_in_turn() -> None:
    assert [bytes(record) for record in Letters().read_batch([2, 0, 2])] == [b"c", b"a", b"c"]
