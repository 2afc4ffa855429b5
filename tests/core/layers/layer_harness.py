"""Drives a layer as a net does and checks it against a formula, row by row.

A table file holds rows (a layer's prototxt, its inputs, an independent formula) and one test over
`cases(ROWS)`, which pairs every row with every check below. Gradients are compared, in float64, with central
differences along a random direction.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, DTypeLike

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.layers import LAYERS, Layer
from dtrain.core.layers.layer import InPlace
from tests.core.layers.gpu_harness import ON_GPUS, run_captured
from tests.core.layers.rig import TEST as TEST
from tests.core.layers.rig import TRAIN as TRAIN
from tests.core.layers.rig import Array as Array
from tests.core.layers.rig import Rig as Rig
from tests.core.layers.rig import make_layer as make_layer
from tests.core.layers.rig import make_rig as make_rig
from tests.core.layers.rig import parse_layer as parse_layer
from tests.played.cudnn import play_cudnn
from tests.played.cupy import play_cupy

STEP = 1e-5
TOLERANCE = {np.float64: {"rtol": 1e-10, "atol": 1e-12}, np.float32: {"rtol": 1e-4, "atol": 1e-5}}


@dataclass(frozen=True, eq=False)
class Row:
    """One case of a layer.

    layer: its prototxt without name, bottoms and tops. inputs: a shape (filled with normal random numbers) or
    an array per bottom. formula: (*inputs, *params) → the top, or the tuple of tops. params: random unless
    given. batches: how often the inputs are repeated along axis 0 when other batch sizes are tried.
    gradient_tops: the tops from which gradients flow. in_place: False where working in place is refused.
    """

    name: str
    layer: str
    inputs: tuple[Any, ...]
    formula: Callable[..., Any]
    params: tuple[ArrayLike, ...] | None = None
    phases: tuple[int, ...] = (TRAIN, TEST)
    num_tops: int = 1
    gradient_tops: tuple[int, ...] = (0,)
    batches: tuple[int, ...] = (2, 0)
    in_place: bool = True

    @property
    def type(self) -> str:
        """The layer's type."""
        return str(parse_layer(self.layer).type)

    def random(self) -> np.random.Generator:
        """Return this row's own random numbers, the same each time."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def make_inputs(self) -> list[Array]:
        """Return the bottoms' values."""
        random = self.random()
        return [
            random.standard_normal(given) if isinstance(given, tuple) else np.asarray(given, np.float64)
            for given in self.inputs
        ]

    def expected(self, inputs: Sequence[Array], params: Sequence[Array]) -> list[Array]:
        """Return what the formula gives for the tops."""
        tops = self.formula(*inputs, *params)
        return [np.asarray(top) for top in (tops if isinstance(tops, tuple) else (tops,))]


def rig_of(
    row: Row,
    phase: int,
    dtype: DTypeLike = np.float64,
    in_place: bool = False,
    engine: str = "reference",
) -> Rig:
    """Return a row's layer with its inputs and params."""
    rig = make_rig(row.layer, row.make_inputs(), row.num_tops, phase, in_place, dtype, engine=engine)
    set_params(row, rig.layer)
    return rig


def set_params(row: Row, layer: Layer) -> list[Array]:
    """Give the layer the row's params and return them."""
    random = row.random()
    random.standard_normal(7)  # other numbers than the inputs
    given = row.params or [random.standard_normal(blob.shape) for blob in layer.blobs]
    for blob, values in zip(layer.blobs, given, strict=True):
        blob.data[...] = values
    return [np.asarray(values, np.float64) for values in given]


def top_weights(row: Row, rig: Rig) -> list[Array]:
    """Return a random diff for each top from which gradients flow, 0 for the others."""
    random = row.random()
    random.standard_normal(11)
    return [random.standard_normal(blob.shape) * (i in row.gradient_tops) for i, blob in enumerate(rig.top)]


def check_forward(row: Row) -> None:
    """The tops are what the formula says, in both precisions and phases, and again the second time."""
    for phase in row.phases:
        for dtype, tolerance in TOLERANCE.items():
            rig = rig_of(row, phase, dtype)
            expected = row.expected(row.make_inputs(), set_params(row, rig.layer))
            for _ in range(2):
                _assert_tops(rig.forward(), expected, tolerance)
                set_params(row, rig.layer)


def check_batch_sizes(row: Row) -> None:
    """The formula holds for other batch sizes, an empty one included, and back again."""
    for phase in row.phases:
        rig = rig_of(row, phase)
        for times in (*row.batches, 1):
            inputs = [
                np.concatenate([values] * times) if times else values[:0] for values in row.make_inputs()
            ]
            expected = row.expected(inputs, set_params(row, rig.layer))
            rig.feed(inputs)
            _assert_tops(rig.forward(), expected, TOLERANCE[np.float64])


def _assert_tops(tops: Sequence[Array], expected: Sequence[Array], tolerance: dict[str, float]) -> None:
    assert [top.shape for top in tops] == [values.shape for values in expected]
    for top, values in zip(tops, expected, strict=True):
        np.testing.assert_allclose(top, values, rtol=tolerance["rtol"], atol=tolerance["atol"])


def check_gradient(row: Row) -> None:
    """Each bottom's and each learned param's diff is the slope along a random direction."""
    for phase in row.phases:
        rig = rig_of(row, phase)
        weights = top_weights(row, rig)
        rig.forward()
        rig.backward(weights)
        targets = {f"bottom {i}": rig.bottom[i] for i in rig.differentiable}
        learned = range(rig.layer.num_statistics, len(rig.layer.blobs))
        targets |= {f"param {i}": rig.layer.blobs[i] for i in learned}
        for name, blob in targets.items():
            gradient, direction = blob.diff.copy(), row.random().standard_normal(blob.shape)
            slope = _slope(rig, blob, direction, weights)
            np.testing.assert_allclose(
                (gradient * direction).sum(), slope, rtol=1e-5, atol=1e-7, err_msg=name
            )


def _slope(rig: Rig, blob: Blob, direction: Array, weights: Sequence[Array]) -> float:
    """Return the derivative of Σ weights·tops along `direction` of `blob`, by a central difference."""
    start, values = blob.data.copy(), []
    for step in (STEP, -STEP):
        blob.data[...] = start + step * direction
        values.append(sum(float((w * y).sum()) for w, y in zip(weights, rig.forward(), strict=True)))
    blob.data[...] = start
    return (values[0] - values[1]) / (2 * STEP)


def check_diff_rules(row: Row) -> None:
    """Backward overwrites the bottoms' diffs, adds to the params', and leaves alone what is not wanted."""
    phase = row.phases[0]
    clean, dirty, unwanted = (rig_of(row, phase) for _ in range(3))
    for rig in (clean, dirty, unwanted):
        start = 0.0 if rig is clean else 7.0
        for blob in (*rig.bottom, *rig.layer.blobs):
            blob.diff[...] = start
        rig.forward()
    weights = top_weights(row, clean)
    clean.backward(weights)
    dirty.backward(weights)
    unwanted.layer.param_propagate_down = [False] * len(unwanted.layer.blobs)
    unwanted.backward(weights, [False] * len(unwanted.bottom))
    shared = {id(blob.diff_tensor.storage) for blob in unwanted.top}
    for i in clean.differentiable:
        np.testing.assert_array_equal(dirty.bottom[i].diff, clean.bottom[i].diff)
        if id(unwanted.bottom[i].diff_tensor.storage) not in shared:
            assert np.all(unwanted.bottom[i].diff == 7)
    for i, blob in enumerate(clean.layer.blobs):
        np.testing.assert_allclose(dirty.layer.blobs[i].diff, blob.diff + 7, rtol=1e-12)
        assert np.all(unwanted.layer.blobs[i].diff == 7)


def check_in_place(row: Row) -> None:
    """With the top over the bottom, values and gradients are the same."""
    for phase in row.phases:
        apart, in_place = rig_of(row, phase), rig_of(row, phase, in_place=True)
        weights = top_weights(row, apart)
        for rig in (apart, in_place):
            rig.forward()
        np.testing.assert_array_equal(in_place.top[0].data, apart.top[0].data)
        for rig in (apart, in_place):
            rig.backward(weights)
        for one, other in zip(
            (*apart.bottom, *apart.layer.blobs), (*in_place.bottom, *in_place.layer.blobs), strict=True
        ):
            np.testing.assert_allclose(other.diff, one.diff, rtol=1e-12, atol=1e-15)


def check_what_backward_reads(row: Row) -> None:
    """Data that backward is said not to read may be anything by then: gradients are the same."""
    with pytest.MonkeyPatch.context() as patch:
        play_cudnn(patch)
        for in_place in _places(row):
            for engine in ("reference", "cudnn", *["onednn"] * has_onednn()):
                _check_what_backward_reads(row, engine, in_place)


def _check_what_backward_reads(row: Row, engine: str, in_place: bool) -> None:
    gradients = []
    for spoils in (False, True):
        rig = rig_of(row, row.phases[0], np.float32, in_place, engine)
        rig.forward()
        for blob in _unread(rig) if spoils else ():
            blob.data[...] = np.nan
        rig.backward(top_weights(row, rig))
        gradients.append([blob.diff.copy() for blob in rig.with_diffs])
    for expected, actual in zip(*gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def _unread(rig: Rig) -> list[Blob]:
    """Return the blobs whose data the layer's backward does not read; shared ones are one."""
    reads_bottoms, reads_tops = rig.layer.backward_reads_bottoms, rig.layer.backward_reads_tops
    read = (*(rig.bottom if reads_bottoms else ()), *(rig.top if reads_tops else ()))
    needed = {id(blob.data_tensor.storage) for blob in read}
    return [blob for blob in (*rig.bottom, *rig.top) if id(blob.data_tensor.storage) not in needed]


def check_onednn(row: Row) -> None:
    """The oneDNN engine gives the tops and gradients that the reference engine gives in float64, in place too."""
    if not has_onednn():
        pytest.skip("oneDNN is not installed")
    _check_engine(row, "onednn")


def check_cupy(row: Row) -> None:
    """The cupy engine does, on device arrays that are played, where host and device don't meet."""
    with pytest.MonkeyPatch.context() as patch:
        play_cupy(patch)
        _check_engine(row, "cupy")


def check_cudnn(row: Row) -> None:
    """The cudnn engine does, on a played cuDNN."""
    with pytest.MonkeyPatch.context() as patch:
        play_cudnn(patch)
        _check_engine(row, "cudnn")


def _places(row: Row) -> tuple[bool, ...]:
    return (False, True) if LAYERS[row.type].in_place is InPlace.YES and row.in_place else (False,)


def _check_engine(row: Row, engine: str) -> None:
    for phase, in_place in itertools.product(row.phases, _places(row)):
        exact = rig_of(row, phase)
        weights = top_weights(row, exact)
        rigs = exact, rig_of(row, phase, np.float32, in_place, engine)
        tops, diffs = [], []
        for rig in rigs:
            tops.append(rig.forward())
            if rig.layer.has_backward and row.gradient_tops:
                rig.backward(weights)
                diffs.append([blob.diff for blob in rig.with_diffs])
        if engine in ON_GPUS and run_captured(rigs[1], row.make_inputs(), weights, bool(diffs)):
            tops.append([blob.data for blob in rigs[1].top])
            diffs += [[blob.diff for blob in rigs[1].with_diffs]] * bool(diffs)
        for expected, *actual in (*zip(*tops, strict=True), *zip(*diffs or ([], []), strict=True)):
            scale = max(1.0, np.abs(expected).max(initial=0.0))
            for values in actual:
                np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4 * scale)


@cache
def has_onednn() -> bool:
    """Return whether oneDNN is installed here."""
    try:
        create_engine("onednn")
    except MissingLibrary:
        return False
    return True


def cases(rows: Iterable[Row]) -> list[Any]:
    """Return a pytest parameter (check, row) for each check that applies to each row."""
    return [
        pytest.param(check, row, id=f"{row.name}-{check.__name__.removeprefix('check_')}")
        for row in rows
        for check in _checks_of(row)
    ]


def _checks_of(row: Row) -> list[Callable[[Row], None]]:
    checks: list[Callable[[Row], None]] = [check_forward, check_onednn, check_cupy, check_cudnn]
    checks += [check_batch_sizes] if row.batches else []
    if LAYERS[row.type].has_backward and row.gradient_tops:
        checks += [check_gradient, check_diff_rules, check_what_backward_reads]
    return checks + [check_in_place] * (True in _places(row))
