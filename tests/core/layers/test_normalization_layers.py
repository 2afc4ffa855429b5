"""Layers that bring values to a mean, a deviation or a length: MVN, LayerNorm, Normalize, BatchNorm over ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.layers.layer_harness import TEST, TRAIN, Array, Rig, Row, cases, make_rig

EPS = float(np.float32(1e-5))  # the default of LayerNorm as a file's float holds it


def mvn(
    x: Array, per_image: bool = False, scales: bool = True, eps: float = float(np.float32(1e-9))
) -> Array:
    """Return x (up to 4 axes, filled up to 4) by its mean and deviation, one channel or image after the other."""
    y = x.reshape(*x.shape, *[1] * (4 - x.ndim)).copy()
    for place in np.ndindex(*y.shape[: 1 if per_image else 2]):
        y[place] -= y[place].mean()
        if scales:
            y[place] /= np.sqrt(np.mean(y[place] ** 2)) + eps
    return y


def layer_norm(
    x: Array, scale: Array | float = 1.0, bias: Array | float = 0.0, axis: int = 1, eps: float = EPS
) -> Array:
    y = x.copy()
    for place in np.ndindex(*x.shape[: axis % x.ndim]):
        y[place] = (x[place] - x[place].mean()) / np.sqrt(x[place].var() + eps)
    return y * scale + bias


def normalize(
    x: Array, scale: Array, per_place: bool = False, eps: float = float(np.float32(1e-10))
) -> Array:
    y = np.zeros_like(x)
    if per_place:
        for n, *place in np.ndindex(x.shape[0], *x.shape[2:]):
            values = x[n, :, *place]
            y[n, :, *place] = values / np.sqrt(values @ values + eps)
    else:
        for n in range(len(x)):
            y[n] = x[n] / np.sqrt(np.sum(x[n] ** 2) + eps)
    return y * (scale.reshape(-1, *[1] * (x.ndim - 2)) if scale.ndim else scale)


def layer(layer_type: str, message: str, fields: str = "") -> str:
    return f'type: "{layer_type}" {message} {{ {fields} }}'


ROWS = (
    Row("mvn", 'type: "MVN"', ((2, 3, 4, 5),), mvn),
    Row(
        "mvn-across-channels",
        layer("MVN", "mvn_param", "across_channels: true"),
        ((2, 3, 4, 5),),
        lambda x: mvn(x, per_image=True),
    ),
    Row(
        "mvn-mean",
        layer("MVN", "mvn_param", "normalize_variance: false"),
        ((2, 3, 4, 5),),
        lambda x: mvn(x, scales=False),
    ),
    Row(
        "mvn-mean-across-channels",
        layer("MVN", "mvn_param", "normalize_variance: false across_channels: true"),
        ((2, 3, 4, 5),),
        lambda x: mvn(x, per_image=True, scales=False),
    ),
    Row(
        "mvn-eps",
        layer("MVN", "mvn_param", "eps: 0.5"),
        ((2, 3, 4, 5),),
        lambda x: mvn(x, eps=0.5),
        gradient_tops=(),  # it takes eps to be small; see below
    ),
    Row("mvn-3-axes", 'type: "MVN"', ((2, 3, 4),), mvn, in_place=False),
    Row(
        "mvn-2-axes",
        layer("MVN", "mvn_param", "across_channels: true"),
        ((2, 5),),
        lambda x: mvn(x, per_image=True),
        in_place=False,
    ),
    Row("layer-norm", 'type: "LayerNorm"', ((2, 3, 4),), lambda x, s, b: layer_norm(x, s, b)),
    Row(
        "layer-norm-last-axis",
        layer("LayerNorm", "layer_norm_param", "axis: -1 eps: 0.25"),
        ((2, 3, 8),),
        lambda x, s, b: layer_norm(x, s, b, axis=2, eps=0.25),
    ),
    Row(
        "layer-norm-all",
        layer("LayerNorm", "layer_norm_param", "axis: 0 eps: 0.25"),
        ((3, 4),),
        lambda x, s, b: layer_norm(x, s, b, axis=0, eps=0.25),
        batches=(),
    ),
    Row(
        "layer-norm-without-params",
        layer("LayerNorm", "layer_norm_param", "axis: 2 eps: 0.25 affine: false"),
        ((2, 3, 4, 5),),
        lambda x: layer_norm(x, axis=2, eps=0.25),
    ),
    Row("normalize", 'type: "Normalize"', ((2, 3, 4, 5),), lambda x, s: normalize(x, s)),
    Row(
        "normalize-places",
        layer("Normalize", "norm_param", "across_spatial: false"),
        ((2, 3, 4, 5),),
        lambda x, s: normalize(x, s, per_place=True),
    ),
    Row(
        "normalize-channels",
        layer("Normalize", "norm_param", "channel_shared: false eps: 0.25"),
        ((2, 3, 4),),
        lambda x, s: normalize(x, s, eps=0.25),
    ),
    Row(
        "normalize-places-channels",
        layer("Normalize", "norm_param", "across_spatial: false channel_shared: false eps: 0.25"),
        ((2, 3, 4, 5),),
        lambda x, s: normalize(x, s, per_place=True, eps=0.25),
    ),
    Row("normalize-flat", 'type: "Normalize"', ((4, 6),), lambda x, s: normalize(x, s)),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_normalization_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_mvn_gradient_takes_eps_to_be_small_against_the_deviation() -> None:
    x, dy = np.array([-1.0, 1.0, -1.0, 1.0]).reshape(1, 1, 2, 2), np.array([3.0, 0, 0, 0]).reshape(1, 1, 2, 2)
    rig = make_rig(layer("MVN", "mvn_param", "eps: 1"), [x])
    y = rig.forward()[0]
    np.testing.assert_allclose(y, x / 2)  # the deviation is 1
    rig.backward([dy])
    # dy − mean(dy) − y·mean(dy·y) over deviation + eps, as Caffe has it; mean(dy·y) = −3/8
    np.testing.assert_allclose(rig.bottom[0].diff, (dy - 0.75 + y * 0.375) / 2)


def test_mvn_of_a_constant_image_is_0() -> None:
    rig = make_rig('type: "MVN"', [np.full((1, 2, 3, 3), 7.0)])
    np.testing.assert_array_equal(rig.forward()[0], np.zeros((1, 2, 3, 3)))


def test_normalize_with_a_scale_of_0_still_learns_it() -> None:
    rig = make_rig('type: "Normalize"', [[[3.0, 4.0]]])
    rig.layer.blobs[0].data[...] = 0
    np.testing.assert_array_equal(rig.forward()[0], [[0, 0]])
    rig.backward([np.array([[10.0, 5.0]])])
    np.testing.assert_allclose(rig.layer.blobs[0].diff, 10)  # 10·3/5 + 5·4/5
    np.testing.assert_array_equal(rig.bottom[0].diff, [[0, 0]])


@pytest.mark.parametrize(
    ("text", "first_values"),
    [
        ('type: "LayerNorm"', [1, 0]),
        (
            layer("LayerNorm", "layer_norm_param", "scale_filler { value: 3 } bias_filler { value: 2 }"),
            [3, 2],
        ),
        (layer("LayerNorm", "layer_norm_param", "affine: false"), []),
        ('type: "Normalize"', [1]),
        (layer("Normalize", "norm_param", "scale_filler { value: 20 }"), [20]),
    ],
)
def test_normalization_layer_params_start_as_filled(text: str, first_values: list[float]) -> None:
    blobs = make_rig(text, [np.zeros((2, 3))]).layer.blobs
    assert [set(blob.data.reshape(-1)) for blob in blobs] == [{value} for value in first_values]


MISTAKES = [
    ('type: "BatchNorm"', (), "the bottom must have an axis of items, got a scalar"),
    (
        'type: "MVN"',
        (1, 2, 3, 4, 5),
        'bottom 0 "x0" must have at most 4 axes (N, C, H, W), got shape (1, 2, 3, 4, 5)',
    ),
    (
        layer("LayerNorm", "layer_norm_param", "axis: 2"),
        (2, 3),
        "layer_norm_param.axis must be -2 to 1 for 2 axes, got 2",
    ),
    ('type: "Normalize"', (3,), 'bottom 0 "x0" must have at least 2 axes (N, C, …), got shape (3,)'),
    (
        'type: "BatchNorm" batch_norm_param { use_global_stats: true } dtrain_param { sync_statistics: true }',
        (2, 3),
        "dtrain_param.sync_statistics must be left out with use_global_stats: true: it is about the statistics "
        "of batches, which are not taken then",
    ),
]


@pytest.mark.parametrize(("text", "shape", "message"), MISTAKES, ids=[row[2][:50] for row in MISTAKES])
def test_normalization_layer_mistake_is_one_sentence(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(text, [np.zeros(shape)])
    assert str(caught.value) == message


def test_mvn_in_place_on_fewer_axes_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        make_rig('type: "MVN"', [np.zeros((2, 3))], in_place=True)
    assert str(caught.value) == "the bottom must have 4 axes (N, C, H, W) in place, got shape (2, 3)"


@pytest.mark.parametrize(
    ("text", "then", "message"),
    [
        (
            'type: "LayerNorm"',
            (2, 4),
            "the bottom must keep the shape (3,) from axis 1 on, as scale and bias were made for, got shape (2, 4)",
        ),
        ('type: "Normalize"', (2, 4), "the bottom must keep 3 channels at axis 1, got shape (2, 4)"),
    ],
)
def test_normalization_layer_whose_params_no_longer_fit_names_both(
    text: str, then: tuple[int, ...], message: str
) -> None:
    rig = make_rig(text, [np.zeros((2, 3))])
    with pytest.raises(UserError) as caught:
        rig.feed([np.zeros(then)])
    assert str(caught.value) == message


# -- BatchNorm over ranks ----------------------------------------------------------------------------------

SYNCHRONISED = 'type: "BatchNorm" batch_norm_param { eps: 0.25 %s } dtrain_param { sync_statistics: true }'
SHARES = np.array([[[0.0, 1.0], [2.0, 1.0]], [[4.0, 5.0], [10.0, 1.0]]])  # means 4 and 2 of all four items


def make_rank(communicator: Communicator, x: Array, phase: int = TRAIN, fields: str = "") -> Rig:
    """Return a BatchNorm with sync_statistics on one of several ranks."""
    rig = make_rig(SYNCHRONISED % fields, [x], phase=phase)
    rig.layer.context = replace(rig.layer.context, communicator=communicator)
    rig.layer.reshape(rig.bottom, rig.top)
    return rig


def test_batch_norm_synchronised_keeps_the_running_sums_of_all_ranks_together() -> None:
    def body(communicator: Communicator) -> list[Array]:
        rig = make_rank(communicator, SHARES[communicator.rank])
        rig.forward()
        return [blob.data.copy() for blob in rig.layer.blobs]

    for mean_sum, variance_sum, factor in run_ranks(2, body):
        np.testing.assert_allclose(mean_sum, [4, 2])
        np.testing.assert_allclose(variance_sum, [56 / 3, 12 / 3])  # over m − 1 = 3
        np.testing.assert_array_equal(factor, [1])


def test_batch_norm_synchronised_follows_a_change_of_the_batch() -> None:
    def body(communicator: Communicator) -> list[Array]:
        rig = make_rank(communicator, SHARES[communicator.rank], fields="moving_average_fraction: 0")
        for num_items in (2, 1):
            rig.feed([SHARES[communicator.rank][:num_items]])
            rig.forward()
        return [blob.data.copy() for blob in rig.layer.blobs]

    for mean_sum, variance_sum, _ in run_ranks(2, body):
        np.testing.assert_allclose(mean_sum, [2, 3])  # of 0 and 4, 1 and 5
        np.testing.assert_allclose(variance_sum, [8, 8])


class Forbidden(SingleCommunicator):
    """A communicator of two ranks that must not be called."""

    @property
    def world_size(self) -> int:
        return 2

    def all_reduce(self, array: Array) -> None:
        raise AssertionError("no rank is to be asked")


@pytest.mark.parametrize(("phase", "fields"), [(TEST, ""), (TEST, "use_global_stats: false")])
def test_batch_norm_synchronised_asks_no_other_rank_in_test(phase: int, fields: str) -> None:
    rig = make_rank(Forbidden(), SHARES[0], phase, fields)
    rig.forward()
    rig.backward([np.ones((2, 2))])


def test_batch_norm_synchronised_on_a_single_rank_is_the_engine_s() -> None:
    plain = make_rig(SYNCHRONISED % "", [SHARES[0]])
    alone = make_rank(SingleCommunicator(), SHARES[0])
    np.testing.assert_array_equal(alone.forward()[0], plain.forward()[0])
    assert type(alone.layer.operation) is type(plain.layer.operation)  # type: ignore[attr-defined]
