from __future__ import annotations

import itertools

import numpy as np
import pytest

from dtrain.core.engines.reference.phases import Phase, Phases, Tap

ALL = slice(None)


def test_phases_of_stride_two_take_turns() -> None:
    """Padded by 1, pixels 0 … 4 are places 1 … 5 of 7: odd places are phase 1, even ones phase 0."""
    phases = Phases(image=(5,), kernel=(3,), stride=(2,), pad=(1,), dilation=(1,))
    assert phases.grid == (4,)
    even, odd = phases.along(ALL)
    assert (even.grid, even.image) == ((slice(1, 3),), (slice(1, 5, 2),))
    assert (odd.grid, odd.image) == ((slice(0, 3),), (slice(0, 6, 2),))
    assert even.taps == (Tap(index=0, offset=0), Tap(index=2, offset=1))
    assert (odd.taps, odd.indices) == ((Tap(index=1, offset=0),), [1])


def test_phase_that_no_tap_sees_has_none() -> None:
    phases = Phases(image=(6,), kernel=(2,), stride=(3,), pad=(0,), dilation=(1,))
    assert [phase.indices for phase in phases.along(ALL)] == [[0], [1], []]


@pytest.mark.parametrize(
    ("indices", "selection"),
    [
        ([], slice(0, 0, 1)),
        ([4], slice(4, 5, 1)),
        ([1, 3, 5], slice(1, 6, 2)),
        ([0, 1, 3], [0, 1, 3]),
    ],
)
def test_selection_of_taps_in_equal_steps_is_a_slice(indices: list[int], selection: object) -> None:
    phase = Phase((), (), tuple(Tap(index, 0) for index in indices))
    assert phase.selection == selection


def test_phase_without_pixels_is_empty() -> None:
    phases = Phases(image=(1,), kernel=(1,), stride=(3,), pad=(0,), dilation=(1,))
    sizes = [len(np.arange(1)[phase.image]) for phase in phases.along(ALL)]
    assert sizes == [1, 0, 0]
    assert [len(np.arange(1)[phase.grid]) for phase in phases.along(ALL)] == sizes


def test_phases_along_no_axes_are_one_that_every_image_is_in() -> None:
    phases = Phases(image=(5,), kernel=(3,), stride=(2,), pad=(1,), dilation=(1,))
    (only,) = phases.along(slice(0, 0))
    assert (only.grid, only.image, only.taps) == ((), (), (Tap(0, 0),))


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("pad", [(0, 0), (1, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_tap_sees_its_phase_from_its_offset_on(
    stride: tuple[int, int], pad: tuple[int, int], dilation: tuple[int, int]
) -> None:
    kernel, image = (2, 3), np.arange(1.0, 8 * 11 + 1).reshape(8, 11)
    phases = Phases(image.shape, kernel, stride, pad, dilation)
    padded = np.pad(image, [(pad[0],) * 2, (pad[1],) * 2])
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    output = [(size - e) // s + 1 for size, e, s in zip(padded.shape, extents, stride, strict=True)]
    seen = set()
    for phase in phases.along(ALL):
        grid = np.zeros(phases.grid)
        grid[phase.grid] = image[phase.image]
        for tap in phase.taps:
            run = np.concatenate([grid.ravel()[tap.offset :], np.zeros(tap.offset)]).reshape(phases.grid)
            row, column = divmod(tap.index, kernel[1])
            expected = padded[row * dilation[0] :: stride[0], column * dilation[1] :: stride[1]]
            window = tuple(map(slice, output))
            np.testing.assert_array_equal(run[window], expected[window])
            seen.add((row, column))
    assert seen == set(itertools.product(range(2), range(3)))
