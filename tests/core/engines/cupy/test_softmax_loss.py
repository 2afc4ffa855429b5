"""The loss of a softmax on played devices, against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.operations import SoftmaxLossSpec
from tests.played.cupy import play_cupy

SMALLEST = 1e-3
# shape of p, axis, ignored label, divisor (0: the places that count), smoothing
CASES = {
    "classes": ((5, 4), 1, None, 5.0, 0.0),
    "more-places-than-a-grid-has-threads": ((1, 2, 300, 500), 1, 1, 0.0, 0.0),
    "axis": ((2, 3, 4, 5), 2, 0, 0.0, 0.0),
    "smoothed": ((6, 7), 1, None, 2.0, 0.25),
    "smoothed-with-ignored": ((3, 4, 2), 1, 1, 0.0, 0.5),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_loss_and_gradient_follow_the_formula(
    monkeypatch: pytest.MonkeyPatch,
    dtype: type,
    case: tuple[tuple[int, ...], int, int | None, float, float],
) -> None:
    shape, axis, ignored, divisor, smoothing = case
    random = np.random.default_rng(3)
    p = random.random(shape).astype(dtype).astype(np.float64)
    p /= p.sum(axis=axis, keepdims=True)
    p = np.moveaxis(p.astype(dtype), axis, -1)
    labels = random.integers(0, p.shape[-1], p.shape[:-1])
    counts = np.ones(labels.shape, bool) if ignored is None else labels != ignored
    wanted = (1 - smoothing) * np.eye(p.shape[-1])[labels] + smoothing / p.shape[-1]
    used = divisor or counts.sum()
    loss = -((wanted * np.log(np.maximum(p, SMALLEST))).sum(axis=-1) * counts).sum() / used
    gradient = (p - wanted) * counts[..., None] * 3 / used

    play_cupy(monkeypatch)
    engine = create_engine("cupy")
    operation = engine.create(SoftmaxLossSpec(shape, axis, ignored, divisor, smoothing, SMALLEST))
    of_p, of_labels, of_loss, x = (Blob(each, dtype) for each in (shape, labels.shape, (), shape))
    of_p.data[...], of_labels.data[...] = np.moveaxis(p, -1, axis), labels
    operation.forward(of_p, of_labels, of_loss)
    operation.backward(of_p, of_labels, 3.0, x)
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(of_loss.data, loss, rtol=tolerance)
    np.testing.assert_allclose(
        x.diff, np.moveaxis(gradient, -1, axis), rtol=10 * tolerance, atol=tolerance / used
    )


def test_softmax_loss_of_places_that_are_all_ignored_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loss_of(monkeypatch, [[0.5, 0.5]], [7], ignored=7) == 0


@pytest.mark.parametrize("label", [2, -1, 1e12, np.nan])
def test_softmax_loss_of_a_label_that_is_no_class_is_nan(
    monkeypatch: pytest.MonkeyPatch, label: float
) -> None:
    assert np.isnan(loss_of(monkeypatch, [[0.5, 0.5], [0.5, 0.5]], [0, label]))


def test_softmax_loss_of_probabilities_that_are_nan_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.isnan(loss_of(monkeypatch, [[np.nan, np.nan]], [0]))


def loss_of(
    monkeypatch: pytest.MonkeyPatch, p: list[list[float]], labels: list[float], ignored: int | None = None
) -> float:
    play_cupy(monkeypatch)
    of_p, of_labels, loss = Blob((len(p), 2)), Blob((len(p),)), Blob(())
    of_p.data[...], of_labels.data[...] = p, labels
    spec = SoftmaxLossSpec(of_p.shape, 1, ignored, 0.0, 0.0, SMALLEST)
    create_engine("cupy").create(spec).forward(of_p, of_labels, loss)
    return float(loss.data)
