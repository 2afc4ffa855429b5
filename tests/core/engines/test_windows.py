from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.windows import Windows, tap_slices


def test_tap_slices_of_a_row_are_what_its_windows_see() -> None:
    """Two windows of three taps, two apart, on a row of seven: at 0, 2, 4 and at 2, 4, 6."""
    found = tap_slices((3,), (2,), (2,), (2,))
    row = np.arange(7)
    assert [(tap, row[seen].tolist()) for tap, seen in found] == [
        ((0,), [0, 2]),
        ((1,), [2, 4]),
        ((2,), [4, 6]),
    ]


def test_tap_slices_of_no_axes_are_the_one_place_there_is() -> None:
    assert tap_slices((), (), (), ()) == [((), ())]


def make(
    stride: int = 2, pad: int = 0, dilation: tuple[int, ...] = (), size: int = 5, output: int = 2
) -> Windows:
    return Windows(np, (1, 1, size), (1, 1, output), (3,), (stride,), (pad,), dilation)


def test_windows_see_padding_on_both_sides() -> None:
    windows = make(pad=1, output=4, size=6)  # 7 + 2 places wide: one beyond the input and its pad
    x = np.arange(1.0, 7).reshape(1, 1, 6)
    seen = [values.ravel().tolist() for values in windows.seen(x, -1)]
    assert seen == [[-1, 2, 4, 6], [1, 3, 5, -1], [2, 4, 6, -1]]


def test_windows_without_padding_view_the_input_itself() -> None:
    x = np.arange(5.0).reshape(1, 1, 5)
    assert all(np.shares_memory(view, x) for view in make().views(x, 0))
    assert all(values.flags.c_contiguous for values in make().seen(x, 0))


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (make(stride=2), [1, 1, 2, 1, 1]),
        (make(stride=3, size=7), [1, 1, 1, 1, 1, 1, 0]),
        (make(stride=1, dilation=(2,), size=6), [1, 1, 1, 1, 1, 1]),
        (make(stride=2, pad=1), [1, 2, 1, 1, 0]),
    ],
    ids=["overlapping", "disjoint", "dilated", "padded"],
)
def test_windows_scatter_of_ones_counts_the_windows_over_each_place(
    windows: Windows, expected: list[int]
) -> None:
    x_diff = np.full((1, 1, len(expected)), np.nan)
    windows.scatter(x_diff, lambda index: np.ones((1, 1, 2)))
    assert x_diff.ravel().tolist() == expected


def test_windows_scatter_while_views_are_in_use_leaves_them() -> None:
    windows, x = make(pad=1), np.arange(1.0, 6).reshape(1, 1, 5)
    views, x_diff = windows.views(x, 0), np.empty_like(x)
    windows.scatter(x_diff, lambda index: next(views))
    # the windows cover 0 1 2 and 2 3 4, padding included: 2 is seen twice
    assert x_diff.ravel().tolist() == [1, 4, 3, 4, 0]
