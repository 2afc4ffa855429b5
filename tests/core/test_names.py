from __future__ import annotations

import pytest

from dtrain.core.names import nearest

LAYERS = ["Convolution", "Deconvolution", "Pooling", "ReLU", "PReLU", "InnerProduct"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Convolutoin", 'did you mean "Convolution"?'),
        ("RELU", 'did you mean "ReLU"?'),
        ("Poling", 'did you mean "Pooling"?'),
        ("Xyz", ""),
        ("", ""),
    ],
)
def test_nearest_of_one_misspelt_name_is_the_known_one(name: str, suggestion: str) -> None:
    assert nearest(name, LAYERS) == suggestion


def test_nearest_with_equally_near_names_gives_them_in_alphabetical_order() -> None:
    assert nearest("pad_x", ["pad_w", "group", "pad_h"]) == 'did you mean "pad_h" or "pad_w"?'


def test_nearest_gives_three_names_at_most() -> None:
    assert nearest("ipx", ["ip1", "ip2", "ip3", "ip4"]) == 'did you mean "ip1", "ip2" or "ip3"?'


def test_nearest_without_known_names_is_empty() -> None:
    assert nearest("conv1", []) == ""


def test_nearest_compares_no_names_of_lengths_that_can_not_be_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "difflib.SequenceMatcher", None
    )  # a name of a megabyte would keep it busy for minutes
    assert nearest("pool" * 50, LAYERS) == ""
