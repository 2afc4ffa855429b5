"""Layers are written `name(bottoms -> tops)`, with `*weight` behind a top that has a loss_weight."""

from __future__ import annotations

import re

import pytest

from dtrain.core.graph.node import Node
from dtrain.core.graph.splits import insert_splits
from dtrain.proto import caffe_pb2


def parse(layer: str) -> caffe_pb2.LayerParameter:
    name, bottoms, tops = re.fullmatch(r"(\w+)\((.*?) ?-> ?(.*)\)", layer).groups()  # type: ignore[union-attr]
    param = caffe_pb2.LayerParameter(name=name, bottom=bottoms.split())
    for top in tops.split():
        blob, _, weight = top.partition("*")
        param.top.append(blob)
        if "*" in tops:
            param.loss_weight.append(float(weight or 0))
    return param


def write(node: Node) -> str:
    param = node.param
    weights = [f"*{weight:g}" if weight else "" for weight in param.loss_weight] or [""] * len(param.top)
    tops = [top + weight for top, weight in zip(param.top, weights, strict=True)]
    return f"{param.name}({' '.join([*param.bottom, '->', *tops])})"


def split(*layers: str) -> list[Node]:
    return insert_splits([Node(parse(layer), i, f"net.prototxt:{i + 1}") for i, layer in enumerate(layers)])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # every top has one consumer, or none
        (["d(-> x y)", "ip(x -> p)", "loss(p y -> l)"], ["d(-> x y)", "ip(x -> p)", "loss(p y -> l)"]),
        # two consumers, one of them twice
        (
            ["d(-> x)", "a(x -> p)", "b(x x -> q)"],
            [
                "d(-> x)",
                "x_d_0_split(x -> x_d_0_split_0 x_d_0_split_1 x_d_0_split_2)",
                "a(x_d_0_split_0 -> p)",
                "b(x_d_0_split_1 x_d_0_split_2 -> q)",
            ],
        ),
        # the second top, whose index is in the name
        (
            ["d(-> x y)", "a(x y -> p)", "b(y -> q)"],
            [
                "d(-> x y)",
                "y_d_1_split(y -> y_d_1_split_0 y_d_1_split_1)",
                "a(x y_d_1_split_0 -> p)",
                "b(y_d_1_split_1 -> q)",
            ],
        ),
        # two tops of one layer
        (
            ["d(-> x y)", "a(x y -> p)", "b(x y -> q)"],
            [
                "d(-> x y)",
                "x_d_0_split(x -> x_d_0_split_0 x_d_0_split_1)",
                "y_d_1_split(y -> y_d_1_split_0 y_d_1_split_1)",
                "a(x_d_0_split_0 y_d_1_split_0 -> p)",
                "b(x_d_0_split_1 y_d_1_split_1 -> q)",
            ],
        ),
        # a layer that works in place makes a new source: x of d has one consumer, x of r two
        (
            ["d(-> x)", "r(x -> x)", "a(x -> p)", "b(x -> q)"],
            [
                "d(-> x)",
                "r(x -> x)",
                "x_r_0_split(x -> x_r_0_split_0 x_r_0_split_1)",
                "a(x_r_0_split_0 -> p)",
                "b(x_r_0_split_1 -> q)",
            ],
        ),
        # an in-place chain alone needs no split
        (
            ["d(-> x)", "r(x -> x)", "s(x -> x)", "a(x -> p)"],
            ["d(-> x)", "r(x -> x)", "s(x -> x)", "a(x -> p)"],
        ),
        # a loss weight is a consumer of its own and moves to output 0
        (
            ["d(-> x)", "a(x -> p*2.5)", "b(p -> q)"],
            [
                "d(-> x)",
                "a(x -> p)",
                "p_a_0_split(p -> p_a_0_split_0*2.5 p_a_0_split_1)",
                "b(p_a_0_split_1 -> q)",
            ],
        ),
        # a weight of 0 is none, and one of a top that nobody reads stays where it is
        (
            ["d(-> x)", "a(x -> p*0 q*3)", "b(p -> r)"],
            ["d(-> x)", "a(x -> p q*3)", "b(p -> r)"],
        ),
        # a bottom that nobody produces is left alone
        (["a(x -> p)", "b(x -> q)"], ["a(x -> p)", "b(x -> q)"]),
    ],
)
def test_insert_splits_gives_every_consumer_its_own_blob(layers: list[str], expected: list[str]) -> None:
    assert [write(node) for node in split(*layers)] == expected


def test_insert_splits_marks_what_it_inserts_with_the_place_of_its_producer() -> None:
    nodes = split("d(-> x)", "a(x -> p)", "b(p -> q)", "c(p -> r)")
    inserted = [node for node in nodes if node.inserted]
    assert [(node.name, node.param.type, node.where, node.index) for node in inserted] == [
        ("p_a_0_split", "Split", "net.prototxt:2", 1)
    ]


def test_insert_splits_leaves_the_given_layers_as_they_are() -> None:
    nodes = [Node(parse(layer), i, "") for i, layer in enumerate(["d(-> x*1)", "a(x -> p)", "b(x -> q)"])]
    before = [write(node) for node in nodes]
    insert_splits(nodes)
    assert [write(node) for node in nodes] == before
