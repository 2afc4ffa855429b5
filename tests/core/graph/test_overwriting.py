"""Tests of core/graph/overwriting.py."""

from __future__ import annotations

from dtrain.core.graph.node import Node
from dtrain.core.graph.overwriting import find_overwriting
from dtrain.proto import caffe_pb2


def nodes(*layers: tuple[str, list[str], list[str]]) -> list[Node]:
    return [
        Node(caffe_pb2.LayerParameter(name=f"l{i}", type=kind, bottom=bottom, top=top), i, "net:1")
        for i, (kind, bottom, top) in enumerate(layers)
    ]


def test_find_overwriting_of_a_chain_names_all_that_come_behind() -> None:
    chain = nodes(
        ("Input", [], ["a"]),
        ("TanH", ["a"], ["b"]),
        ("Dropout", ["b"], ["b"]),
        ("Scale", ["b"], ["b"]),
        ("InnerProduct", ["b"], ["c"]),
    )
    assert find_overwriting(chain) == [(), ("Dropout", "Scale"), ("Scale",), (), ()]


def test_find_overwriting_looks_at_the_blob_and_not_at_its_readers() -> None:
    apart = nodes(("TanH", ["a"], ["b"]), ("ReLU", ["b"], ["c"]), ("Scale", ["c", "s"], ["c"]))
    assert find_overwriting(apart) == [(), ("Scale",), ()]


def test_find_overwriting_of_second_tops_is_not_asked_for() -> None:
    second = nodes(("Pooling", ["a"], ["b", "mask"]), ("Power", ["mask"], ["mask"]))
    assert find_overwriting(second) == [(), ()]


def test_find_overwriting_of_a_split_counts_all_its_tops() -> None:
    split = nodes(("Split", ["a"], ["b", "c"]), ("TanH", ["c"], ["c"]))
    assert find_overwriting(split) == [("TanH",), ()]
