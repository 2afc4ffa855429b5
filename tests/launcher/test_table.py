"""Tables that fit a page, compared whole, and numbers for people."""

from __future__ import annotations

import pytest

from dtrain.launcher.table import short_number, table_lines

ROWS = [
    ("layer", "type", "ms", "share"),
    ("inception_3a/relu_5x5_reduce", "ReLU", "1.25", "3.0%"),
    ("fc", "InnerProduct", "120.00", ""),
]


def test_table_lines_pads_texts_and_sets_numbers_to_the_right() -> None:
    assert table_lines(ROWS, 2) == [
        "  layer                         type              ms  share",
        "  inception_3a/relu_5x5_reduce  ReLU            1.25   3.0%",
        "  fc                            InnerProduct  120.00",
    ]


def test_table_lines_too_long_for_the_page_cut_the_middle_of_texts() -> None:
    lines = table_lines(ROWS, 2, 45)
    assert lines == [
        "  layer           type              ms  share",
        "  incepti…reduce  ReLU            1.25   3.0%",
        "  fc              InnerProduct  120.00",
    ]
    assert max(map(len, lines)) == 45


def test_table_lines_never_cut_texts_below_eight_letters_nor_numbers() -> None:
    lines = table_lines(ROWS, 2, 10)
    assert lines[1] == "  ince…uce  ReLU        1.25   3.0%"
    assert lines[2] == "  fc        Inne…uct  120.00"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1536, "1.536k"),
        (105_415_200, "105.4M"),
        (2.27e9, "2.27G"),
        (4e13, "40T"),
    ],
)
def test_short_number_has_four_digits_and_a_unit(value: float, text: str) -> None:
    assert short_number(value) == text
