"""Padding layers are folded into who reads them."""

from __future__ import annotations

import logging

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade.padding import fold_padding
from tests.core.graph.upgrade.documents import message_of, net_of


def v0(name: str, type: str, bottom: str = "", top: str = "", fields: str = "") -> str:
    """Return a V0 layer on a line of its own."""
    bottoms = " ".join(f'bottom: "{blob}"' for blob in bottom.split())
    tops = " ".join(f'top: "{blob}"' for blob in top.split())
    return f'layers {{ layer {{ name: "{name}" type: "{type}" {fields} }} {bottoms} {tops} }}\n'


DATA = v0("data", "data", top="data label")
PAD = v0("pad1", "padding", "data", "pad1", "pad: 2")


@pytest.mark.parametrize("type", ["conv", "pool"])
def test_fold_padding_gives_its_reader_the_pad_and_the_bottom(type: str) -> None:
    document = fold_padding(net_of(DATA + PAD + v0("reader", type, "pad1", "out", "kernelsize: 5")))
    assert document.message == message_of(DATA + v0("reader", type, "data", "out", "kernelsize: 5 pad: 2"))
    places = [
        document.line("layers", 1),
        document.line("layers", 1, "layer", "kernelsize"),
        document.line("layers", 1, "layer", "pad"),
    ]
    assert places == [3, 3, 2]


def test_fold_padding_of_one_that_two_read_gives_both() -> None:
    two = v0("a", "conv", "pad1", "a") + v0("b", "pool", "pad1", "b")
    expected = v0("a", "conv", "data", "a", "pad: 2") + v0("b", "pool", "data", "b", "pad: 2")
    assert fold_padding(net_of(DATA + PAD + two)).message == message_of(DATA + expected)


def test_fold_padding_of_one_that_nobody_reads_leaves_it_out() -> None:
    assert fold_padding(net_of(DATA + PAD)).message == message_of(DATA)


def test_fold_padding_goes_by_the_newest_blob_of_a_name() -> None:
    in_place = v0("pad", "padding", "data", "data", "pad: 1")
    net = fold_padding(
        net_of(DATA + in_place + v0("a", "conv", "data", "data") + v0("b", "conv", "data", "b"))
    )
    assert net.message == message_of(
        DATA + v0("a", "conv", "data", "data", "pad: 1") + v0("b", "conv", "data", "b")
    )


def test_fold_padding_without_padding_changes_nothing() -> None:
    text = 'input: "data"' + v0("a", "conv", "data", "a", "pad: 1")
    document = net_of(text)
    assert fold_padding(document).message == message_of(text)
    assert fold_padding(document).lines == document.lines


def test_fold_padding_over_a_pad_of_its_own_warns(caplog: pytest.LogCaptureFixture) -> None:
    net = fold_padding(net_of(DATA + PAD + v0("a", "conv", "pad1", "a", "pad: 1"))).message
    assert net.layers[1].layer.pad == 2
    assert caplog.record_tuples == [
        (
            "dtrain.core.graph.upgrade.padding",
            logging.WARNING,
            'net.prototxt:3: layer "a": its pad of 1 is replaced by that of padding layer "pad1", as in Caffe',
        )
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            DATA + PAD + v0("lrn", "lrn", "pad1", "lrn"),
            'net.prototxt:3: layer "lrn": only conv and pool can read a padding layer, got "lrn", which reads "pad1"',
        ),
        (
            DATA + PAD + v0("a", "conv", "pad1 data", "a"),
            'net.prototxt:3: layer "a": its bottoms must be one, got 2: pad1, data',
        ),
        (
            DATA + v0("p", "padding", "data label", "p") + v0("a", "conv", "p", "a"),
            'net.prototxt:3: layer "a": the bottoms of padding layer "p" must be one, got 2: data, label',
        ),
        (
            DATA + v0("p", "padding", "data", "p q") + v0("a", "conv", "q", "a"),
            'net.prototxt:3: layer "a": the tops of padding layer "p" must be one, got 2: p, q',
        ),
    ],
)
def test_fold_padding_that_caffe_refuses_is_refused(text: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        fold_padding(net_of(text))
    assert str(error.value) == problem
