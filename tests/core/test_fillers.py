"""Random fillers are checked by their statistics over many values, within 5 standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.core.fillers import FILLERS, fan, fill
from dtrain.proto import caffe_pb2

SHAPE = (40, 10, 5, 10)  # 20,000 values; fan in 500, fan out 2000
FAN = {"": 500, "variance_norm: FAN_IN": 500, "variance_norm: FAN_OUT": 2000, "variance_norm: AVERAGE": 1250}


def filled(filler: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[np.float32]:
    values = np.full(shape, 7, np.float32)
    fill(values, text_format.Parse(filler, caffe_pb2.FillerParameter()), np.random.default_rng(seed))
    return values


def check_moments(values: NDArray[np.float32], mean: float, std: float, kurtosis: float) -> None:
    """kurtosis: the fourth central moment over std⁴ (3 normal, 1.8 uniform)."""
    error = 5 / math.sqrt(values.size)
    assert values.mean(dtype=float) == pytest.approx(mean, abs=error * std)
    assert values.var(dtype=float) == pytest.approx(std**2, rel=error * math.sqrt(kurtosis - 1))


def test_fillers_are_those_of_the_catalogue() -> None:
    known = ["bilinear", "constant", "gaussian", "msra", "positive_unitball", "uniform", "xavier"]
    assert list(FILLERS) == known
    assert caffe_pb2.FillerParameter().type == "constant"


@pytest.mark.parametrize(("filler", "value"), [("", 0), ('type: "constant" value: -2.5', -2.5)])
def test_constant_fills_with_its_value(filler: str, value: float) -> None:
    assert (filled(filler) == value).all()


@pytest.mark.parametrize(("bounds", "low", "high"), [("", 0, 1), ("min: -3 max: 5", -3, 5), ("min: 1", 1, 1)])
def test_uniform_fills_evenly_from_min_to_max(bounds: str, low: float, high: float) -> None:
    values = filled(f'type: "uniform" {bounds}')
    assert values.min() >= low
    assert values.max() <= high
    check_moments(values, (low + high) / 2, (high - low) / math.sqrt(12), 1.8)


def test_uniform_with_min_above_max_is_refused() -> None:
    with pytest.raises(
        UserError, match=r'^filler "uniform": min must be at most max, got min 2.0 and max 1.0$'
    ):
        filled('type: "uniform" min: 2')


@pytest.mark.parametrize(("field", "mean", "std"), [("", 0, 1), ("mean: 3 std: 0.5", 3, 0.5)])
def test_gaussian_fills_with_mean_and_std(field: str, mean: float, std: float) -> None:
    values = filled(f'type: "gaussian" {field}')
    check_moments(values, mean, std, 3)
    within = np.abs(values - mean) < std
    assert within.mean() == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.02)


@pytest.mark.parametrize("sparse", [0, 10, 40])
def test_gaussian_sparse_keeps_so_many_of_each_input(sparse: int) -> None:
    values = filled(f'type: "gaussian" std: 2 sparse: {sparse}')
    share = sparse / SHAPE[0]
    assert (values != 0).mean() == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / values.size))
    if sparse:
        check_moments(values[values != 0], 0, 2, 3)


def test_positive_unitball_fills_each_item_with_a_sum_of_1() -> None:
    values = filled('type: "positive_unitball"')
    assert values.min() >= 0
    np.testing.assert_allclose(values.reshape(40, -1).sum(axis=1), 1, rtol=1e-5)
    # 500 numbers of U[0, 1) divided by their sum, about 250: mean 1/500, std (1/√12) / 250
    check_moments(values, 1 / 500, 1 / math.sqrt(12) / 250, 1.8)


@pytest.mark.parametrize(("norm", "n"), FAN.items())
def test_xavier_fills_evenly_within_sqrt_3_over_n(norm: str, n: int) -> None:
    values = filled(f'type: "xavier" {norm} std: 9')  # std is ignored, as in Caffe
    bound = math.sqrt(3 / n)
    assert 0.999 * bound < np.abs(values).max() <= bound
    check_moments(values, 0, math.sqrt(1 / n), 1.8)


@pytest.mark.parametrize(("norm", "n"), FAN.items())
def test_msra_fills_with_variance_2_over_n(norm: str, n: int) -> None:
    check_moments(filled(f'type: "msra" {norm}'), 0, math.sqrt(2 / n), 3)


@pytest.mark.parametrize(
    ("size", "row"),
    [
        (2, [0.5, 0.5]),  # f = 1, c = 0.5: 1 − |x − 0.5|
        (3, [0.5, 1, 0.5]),  # f = 2, c = 0.5
        (4, [0.25, 0.75, 0.75, 0.25]),  # f = 2, c = 0.75
    ],
)
def test_bilinear_fills_every_filter_with_interpolation_weights(size: int, row: list[float]) -> None:
    values = filled('type: "bilinear"', (2, 3, size, size))
    np.testing.assert_allclose(values, np.broadcast_to(np.outer(row, row), (2, 3, size, size)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 2, 3)])
def test_bilinear_of_a_param_without_square_filters_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as caught:
        filled('type: "bilinear"', shape)
    assert str(caught.value) == f'filler "bilinear": the param must be (N, C, K, K), got {shape}'


@pytest.mark.parametrize(
    ("filler", "shape", "problem"),
    [
        ('type: "gausian"', (2,), 'unknown filler "gausian"; did you mean "gaussian"?'),
        ('type: "xavier" sparse: 3', (2,), 'filler "xavier": sparse is for the gaussian filler only, got 3'),
        (
            'type: "gaussian" sparse: 5',
            (4, 9),
            r'filler "gaussian": sparse must be at most 4, the first length of \(4, 9\), got 5',
        ),
        ('type: "xavier"', (3, 0), r'filler "xavier": the param has no values, its shape is \(3, 0\)'),
    ],
)
def test_fill_that_cannot_be_is_refused(filler: str, shape: tuple[int, ...], problem: str) -> None:
    with pytest.raises(UserError, match="^" + problem.replace("?", r"\?")):
        filled(filler, shape)


BOUNDS = {
    "constant": (3, 3),
    "uniform": (-2, 3),
    "gaussian": (-math.inf, math.inf),
    "positive_unitball": (0, 1),
    "xavier": (-math.sqrt(3), math.sqrt(3)),  # n is at least 1
    "msra": (-math.inf, math.inf),
}


@pytest.mark.parametrize("shape", [(), (15,), (8, 3), (2, 3, 4, 5), (2, 3, 4, 5, 2)])
@pytest.mark.parametrize("filler", BOUNDS)
def test_fill_of_any_number_of_axes_sets_every_value(filler: str, shape: tuple[int, ...]) -> None:
    values = filled(f'type: "{filler}" value: 3 min: -2 max: 3', shape)
    low, high = BOUNDS[filler]
    assert values.shape == shape
    assert (values != 7).all()
    assert low <= values.min() <= values.max() <= high
    if filler == "positive_unitball":
        np.testing.assert_allclose(values.reshape(shape[0] if shape else 1, -1).sum(axis=1), 1, rtol=1e-5)
    elif filler != "constant" and shape:
        assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("filler", [name for name in FILLERS if name not in ("constant", "bilinear")])
def test_fill_from_one_seed_is_the_same_again_and_from_another_differs(filler: str) -> None:
    first, again, other = (filled(f'type: "{filler}"', seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [((6, 4), 4, 6), ((6, 4, 3, 2), 24, 36), ((5,), 1, 5)],
)
def test_fan_of_a_shape_is_count_over_its_first_or_second_length(
    shape: tuple[int, ...], fan_in: float, fan_out: float
) -> None:
    norms = caffe_pb2.FillerParameter
    assert fan(shape, norms.FAN_IN) == fan_in
    assert fan(shape, norms.FAN_OUT) == fan_out
    assert fan(shape, norms.AVERAGE) == (fan_in + fan_out) / 2
