from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ConvolutionSpec, Wanted

Array = NDArray[np.float64]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A convolution (fine: its input, N C H…) or, transposed, a deconvolution (fine: its output)."""

    name: str
    fine: Shape
    num_coarse: int
    kernel: Shape
    stride: Shape = ()
    pad: Shape = ()
    dilation: Shape = ()
    group: int = 1

    def geometry(self) -> tuple[Shape, Shape, Shape]:
        """Return stride, pad and dilation with an entry for each spatial axis."""
        num_axes = len(self.kernel)
        return self.stride or (1,) * num_axes, self.pad or (0,) * num_axes, self.dilation or (1,) * num_axes

    @property
    def coarse(self) -> Shape:
        """The shape at the other end."""
        axes = zip(self.fine[2:], self.kernel, *self.geometry(), strict=True)
        sizes = (
            (h + 2 * pad - (dilation * (r - 1) + 1)) // stride + 1 for h, r, stride, pad, dilation in axes
        )
        return (self.fine[0], self.num_coarse, *sizes)

    @property
    def weight(self) -> Shape:
        """The weight's shape."""
        return (self.num_coarse, self.fine[1] // self.group, *self.kernel)


ROWS = [
    Row("plain", (2, 2, 5, 4), 3, (3, 2)),
    Row("batch of one", (1, 1, 4, 4), 1, (2, 2)),
    Row("empty batch", (0, 2, 4, 4), 3, (2, 2)),
    Row("strided with a rest", (2, 2, 6, 7), 2, (2, 3), stride=(3, 2)),
    Row("padded", (2, 2, 4, 5), 2, (3, 3), pad=(2, 1)),
    Row("dilated", (1, 2, 7, 6), 2, (3, 2), dilation=(2, 3)),
    Row("all at once, grouped", (2, 4, 7, 6), 6, (3, 2), (2, 1), (1, 2), (2, 3), 2),
    Row("depthwise", (2, 3, 4, 4), 3, (3, 3), pad=(1, 1), group=3),
    Row("pointwise", (3, 4, 3, 2), 2, (1, 1)),
    Row("pointwise in groups", (3, 4, 3, 2), 2, (1, 1), group=2),
    Row("pointwise strided", (3, 2, 3, 4), 2, (1, 1), stride=(2, 2)),
    Row("pointwise padded", (3, 2, 3, 4), 2, (1, 1), pad=(1, 1)),
    Row("one-dimensional", (2, 2, 9), 3, (4,), stride=(2,), pad=(1,)),
    Row("three-dimensional", (1, 2, 4, 3, 4), 2, (2, 2, 3), (1, 1, 2), (1, 0, 1), (2, 1, 1)),
    Row("as large as the image", (2, 2, 3, 4), 3, (3, 4)),
    Row("depthwise, all at once", (2, 3, 8, 9), 3, (3, 2), (2, 1), (1, 2), (2, 3), 3),
    Row("depthwise, dilation a multiple of the stride", (2, 2, 9, 8), 2, (3, 3), (2, 2), (2, 2), (2, 2), 2),
    Row("depthwise, two filters a channel", (2, 3, 5, 4), 6, (3, 3), (1, 2), (1, 1), group=3),
    Row("depthwise, four filters a channel", (2, 2, 4, 4), 8, (3, 3), group=2),
    Row("depthwise, stride beyond the kernel", (2, 2, 9, 8), 2, (2, 2), (4, 3), (1, 0), group=2),
    Row("depthwise, pad as large as the kernel", (1, 2, 3, 4), 2, (2, 3), (1, 2), (2, 3), group=2),
    Row("depthwise, pointwise strided", (2, 2, 4, 5), 2, (1, 1), (2, 2), group=2),
    Row("depthwise, one-dimensional", (2, 3, 9), 3, (3,), (2,), (1,), group=3),
    Row("depthwise, three-dimensional", (1, 2, 4, 3, 4), 2, (2, 2, 3), (1, 2, 1), (1, 0, 1), group=2),
    Row("depthwise, empty batch", (0, 3, 4, 4), 3, (3, 3), group=3),
    Row("depthwise, upsampling", (1, 3, 8, 6), 3, (4, 4), (2, 2), (1, 1), group=3),
]


def connections(row: Row) -> list[tuple[Any, Any, Any]]:
    """Return the index in fine, weight and coarse of every product that the convolution sums up."""
    found = []
    stride, pad, dilation = row.geometry()
    fine_per_group, coarse_per_group = row.fine[1] // row.group, row.num_coarse // row.group
    for n, k, *output in np.ndindex(row.coarse):
        for c, *tap in np.ndindex(row.weight[1:]):
            place = [
                o * s - p + t * d for o, s, p, t, d in zip(output, stride, pad, tap, dilation, strict=True)
            ]
            if all(0 <= i < size for i, size in zip(place, row.fine[2:], strict=True)):
                channel = k // coarse_per_group * fine_per_group + c
                found.append(((n, channel, *place), (k, c, *tap), (n, k, *output)))
    return found


def convolve(row: Row, x: Array, weight: Array, bias: Array) -> Array:
    """Return the convolution of x, product by product."""
    y = np.zeros(row.coarse) + bias.reshape(-1, *[1] * len(row.kernel))
    for fine, tap, coarse in connections(row):
        y[coarse] += weight[tap] * x[fine]
    return y


def deconvolve(row: Row, x: Array, weight: Array, bias: Array) -> Array:
    """Return the transposed convolution of x, product by product."""
    y = np.zeros(row.fine) + bias.reshape(-1, *[1] * len(row.kernel))
    for fine, tap, coarse in connections(row):
        y[fine] += weight[tap] * x[coarse]
    return y


def make_spec(row: Row, transposed: bool = False, bias: bool = True) -> ConvolutionSpec:
    x_shape, y_shape = (row.coarse, row.fine) if transposed else (row.fine, row.coarse)
    return ConvolutionSpec(x_shape, row.weight, y_shape, 1, *row.geometry(), row.group, bias, transposed)


@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "deconvolution"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_convolution_forward_and_backward_follow_the_formula(rig: Any, row: Row, transposed: bool) -> None:
    formula = deconvolve if transposed else convolve
    spec = make_spec(row, transposed)
    x, weight, bias = rig.normal(*spec.x_shape), rig.normal(*row.weight), rig.normal(spec.y_shape[1])
    y_diff, before = rig.normal(*spec.y_shape), rig.normal(*row.weight)
    blobs = rig.blob(x), rig.blob(weight, before), rig.blob(bias, 0.5), rig.void(spec.y_shape, y_diff)
    operation = rig.engine.create(spec)

    operation.forward(*blobs)
    rig.expect(blobs[3].data, formula(row, x, weight, bias))

    operation.backward(*blobs, Wanted())
    rig.expect_gradient(lambda x: formula(row, x, weight, bias), x, y_diff, blobs[0].diff)
    rig.expect_gradient(lambda w: formula(row, x, w, bias), weight, y_diff, blobs[1].diff - before)
    rig.expect_gradient(lambda b: formula(row, x, weight, b), bias, y_diff, blobs[2].diff - 0.5)


@pytest.mark.parametrize(("outer", "axis"), [((2,), 1), ((), 0), ((2, 3), 2)])
def test_convolution_with_another_axis_takes_all_axes_before_it_as_batch(
    rig: Any, outer: Shape, axis: int
) -> None:
    row = Row("", (int(np.prod(outer)), 2, 4, 4), 3, (2, 2))
    x, weight = rig.normal(*row.fine), rig.normal(*row.weight)
    spec = ConvolutionSpec(
        (*outer, *row.fine[1:]), row.weight, (*outer, *row.coarse[1:]), axis, *row.geometry(), bias=False
    )
    y = rig.void(spec.y_shape)
    rig.engine.create(spec).forward(rig.blob(x.reshape(spec.x_shape)), rig.blob(weight), None, y)
    rig.expect(y.data, convolve(row, x, weight, np.zeros(3)).reshape(spec.y_shape))


def run(rig: Any, operation: Any, spec: ConvolutionSpec, x: Array, weight: Array) -> list[bytes]:
    """Run forward and backward without bias; return the bits of y.data, x.diff and weight.diff."""
    x_blob, weight_blob, y_blob = rig.blob(x), rig.blob(weight, 0.0), rig.void(spec.y_shape, 1.0)
    operation.forward(x_blob, weight_blob, None, y_blob)
    operation.backward(x_blob, weight_blob, None, y_blob, Wanted())
    return [array.tobytes() for array in (y_blob.data, x_blob.diff, weight_blob.diff)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("num_coarse", "group"), [(6, 2), (4, 4)], ids=["grouped", "depthwise"])
def test_convolution_run_again_gives_the_same_bits(
    rig: Any, num_coarse: int, group: int, transposed: bool
) -> None:
    row = Row("", (3, 4, 9, 9), num_coarse, (3, 3), pad=(1, 1), group=group)
    spec = make_spec(row, transposed, bias=False)
    operation, x, weight = rig.engine.create(spec), rig.normal(*spec.x_shape), rig.normal(*row.weight)
    first = run(rig, operation, spec, x, weight)
    run(rig, operation, spec, x + 1, weight)
    assert run(rig, operation, spec, x, weight) == first


@pytest.mark.parametrize(
    "row", [Row("", (2, 2, 5, 5), 3, (3, 3), pad=(1, 1)), Row("", (2, 2, 5, 5), 2, (3, 3), group=2)]
)
def test_convolution_between_others_of_its_net_is_not_disturbed(rig: Any, row: Row) -> None:
    """Two operations and two bottoms of one operation, forward all, backward all: buffers must not leak."""
    spec = make_spec(row, bias=False)
    xs, weight = [rig.normal(*row.fine) for _ in range(3)], rig.normal(*row.weight)
    shared, alone = rig.engine.create(spec), rig.engine.create(spec)
    alone_results = [run(rig, rig.engine.create(spec), spec, x, weight) for x in xs]
    users = [(shared, xs[0]), (shared, xs[1]), (alone, xs[2])]
    blobs = [(rig.blob(x), rig.blob(weight, 0.0), None, rig.void(row.coarse, 1.0)) for _, x in users]
    for (operation, _), operands in zip(users, blobs, strict=True):
        operation.forward(*operands)
    for (operation, _), operands in reversed(list(zip(users, blobs, strict=True))):
        operation.backward(*operands, Wanted())
    assert [bits(x, weight, y) for x, weight, _, y in blobs] == alone_results


def bits(x: Blob, weight: Blob, y: Blob) -> list[bytes]:
    return [array.tobytes() for array in (y.data, x.diff, weight.diff)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)), ids=str)
def test_convolution_backward_leaves_what_is_not_wanted(
    rig: Any, wanted: tuple[bool, bool, bool], transposed: bool
) -> None:
    spec = make_spec(Row("", (1, 2, 4, 4), 2, (3, 3)), transposed)
    blobs = [rig.blob(rig.normal(*shape)) for shape in (spec.x_shape, spec.weight_shape, (2,))]
    for blob, is_wanted in zip(blobs, wanted, strict=True):
        if is_wanted:
            blob.diff[...] = 0
    rig.engine.create(spec).backward(*blobs, rig.void(spec.y_shape, 1.0), Wanted(*wanted))
    assert tuple(not np.isnan(blob.diff).any() for blob in blobs) == wanted


@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "deconvolution"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_convolution_backward_overwrites_a_cleared_diff_and_then_adds(
    rig: Any, row: Row, transposed: bool
) -> None:
    spec = make_spec(row, transposed)
    x, weight, bias = rig.normal(*spec.x_shape), rig.normal(*row.weight), rig.normal(spec.y_shape[1])
    y = rig.void(spec.y_shape, rig.normal(*spec.y_shape))
    operation = rig.engine.create(spec)
    added = rig.blob(weight, 0.0), rig.blob(bias, 0.0)  # as the formula says: above
    operation.backward(rig.blob(x), *added, y, Wanted())
    cleared = rig.cleared(weight), rig.cleared(bias)
    for times in (1, 2):
        operation.backward(rig.blob(x), *cleared, y, Wanted())
        for blob, expected in zip(cleared, added, strict=True):
            rig.expect(blob.read_diff(), times * expected.diff)
