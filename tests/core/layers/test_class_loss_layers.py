"""Losses of classes beside the softmax's own: HingeLoss, MultinomialLogisticLoss, InfogainLoss and
SigmoidCrossEntropyLoss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.data.errors import DataError
from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import Array, Row, cases, check_diff_rules, make_layer, make_rig
from tests.core.layers.loss_formulas import infogain, probabilities, sum_over_places

RECORDED = Path(__file__).parent / "recorded"
RANDOM = np.random.default_rng(9)
LABELS = np.array([0, 3, 1, 2])
PLANE_LABELS = RANDOM.integers(0, 4, (2, 3, 2))
MATRIX = RANDOM.standard_normal((4, 4))
CHANCES = RANDOM.uniform(0.1, 0.9, (4, 2, 2))
TARGETS = RANDOM.uniform(0, 1, (3, 2, 4))
TARGETS_WITH_2 = np.where(RANDOM.uniform(size=TARGETS.shape) < 0.3, 2.5, TARGETS)


def margin(score: float, is_true: bool) -> float:
    return max(0.0, 1 - score if is_true else 1 + score)


def hinge(scores: Array, labels: Array, power: int = 1) -> float:
    """Return the mean over items of Σ max(0, 1 − t·score)^power, class by class."""
    rows = scores.reshape(len(scores), math.prod(scores.shape[1:]))
    total = sum(
        margin(score, c == label) ** power
        for row, label in zip(rows, labels.flat, strict=True)
        for c, score in enumerate(row)
    )
    return total / max(1, len(scores))


def logistic(chances: Array, labels: Array) -> float:
    rows = chances.reshape(len(chances), math.prod(chances.shape[1:]))
    return -sum(math.log(rows[i, int(label)]) for i, label in enumerate(labels.flat)) / max(1, len(chances))


def sigmoid_cross_entropy(
    scores: Array,
    targets: Array,
    ignore: int | None = None,
    divisor: Callable[[int, int, int], int] = lambda outer, inner, valid: outer,
) -> float:
    """Return −Σ (t·log p + (1 − t)·log(1 − p)) / divisor over the targets that are not ignored."""
    pairs = [(1 / (1 + math.exp(-x)), t) for x, t in zip(scores.flat, targets.flat, strict=True)]
    valid = [(p, t) for p, t in pairs if int(t) != ignore]
    total = -sum(t * math.log(p) + (1 - t) * math.log(1 - p) for p, t in valid)
    inner = math.prod(scores.shape[1:])
    return total / max(1, divisor(len(scores), inner, len(valid)))


def infogain_of_bottoms(
    scores: Array, labels: Array, matrix: Array, class_weight: Sequence[float] | None = None
) -> float:
    cost = partial(infogain, matrix=matrix.reshape(4, 4))
    return sum_over_places(cost, scores, labels, class_weight=class_weight)


def hinge_loss(fields: str = "") -> str:
    return f'type: "HingeLoss" {fields}'


def sigmoid_loss(fields: str = "") -> str:
    return f'type: "SigmoidCrossEntropyLoss" {fields}'


def infogain_loss(fields: str = "") -> str:
    return f'type: "InfogainLoss" {fields}'


ROWS = (
    Row("hinge-loss", hinge_loss(), ((4, 5), LABELS), hinge),
    Row(
        "hinge-loss-l2",
        hinge_loss("hinge_loss_param { norm: L2 }"),
        ((4, 5), LABELS.reshape(4, 1)),
        partial(hinge, power=2),
    ),
    Row("hinge-loss-flattens", hinge_loss(), ((4, 3, 2, 1), LABELS.reshape(4, 1, 1, 1)), hinge),
    Row("multinomial-loss", 'type: "MultinomialLogisticLoss"', (CHANCES.reshape(4, 4), LABELS), logistic),
    Row("multinomial-loss-flattens", 'type: "MultinomialLogisticLoss"', (CHANCES, LABELS), logistic),
    Row("sigmoid-loss", sigmoid_loss(), ((3, 2, 4), TARGETS.reshape(3, 8)), sigmoid_cross_entropy),
    Row(
        "sigmoid-loss-ignore-valid",
        sigmoid_loss("loss_param { ignore_label: 2 normalization: VALID }"),
        ((3, 2, 4), TARGETS_WITH_2),
        partial(sigmoid_cross_entropy, ignore=2, divisor=lambda outer, inner, valid: valid),
    ),
    Row(
        "sigmoid-loss-ignore-batch-size",
        sigmoid_loss("loss_param { ignore_label: 2 }"),
        ((3, 2, 4), TARGETS_WITH_2),
        partial(sigmoid_cross_entropy, ignore=2),
    ),
    Row(
        "sigmoid-loss-full",
        sigmoid_loss("loss_param { normalization: FULL ignore_label: 2 }"),
        ((3, 2, 4), TARGETS_WITH_2),
        partial(sigmoid_cross_entropy, ignore=2, divisor=lambda outer, inner, valid: outer * inner),
    ),
    Row(
        "sigmoid-loss-none",
        sigmoid_loss("loss_param { normalization: NONE }"),
        ((3, 8), TARGETS.reshape(3, 8)),
        partial(sigmoid_cross_entropy, divisor=lambda outer, inner, valid: 1),
    ),
    Row(
        "sigmoid-loss-old-normalize",
        sigmoid_loss("loss_param { normalize: true }"),
        ((3, 8), TARGETS.reshape(3, 8)),
        partial(sigmoid_cross_entropy, divisor=lambda outer, inner, valid: valid),
    ),
    Row(
        "sigmoid-loss-every-fraction-has-integer-part-0",
        sigmoid_loss("loss_param { ignore_label: 0 }"),
        ((3, 8), TARGETS.reshape(3, 8)),
        lambda scores, targets: 0.0,
    ),
    Row(
        "infogain-loss",
        infogain_loss(),
        ((4, 4), LABELS, MATRIX.reshape(1, 1, 4, 4)),
        infogain_of_bottoms,
        batches=(),  # the matrix has no axis of items
    ),
    Row(
        "infogain-loss-plane-ignore-full",
        infogain_loss("loss_param { ignore_label: 2 normalization: FULL }"),
        ((2, 4, 3, 2), PLANE_LABELS, MATRIX),
        lambda scores, labels, matrix: sum_over_places(
            partial(infogain, matrix=matrix),
            scores,
            labels,
            ignore=2,
            divisor=lambda outer, inner, valid: outer * inner,
        ),
        batches=(),
    ),
    Row(
        "infogain-loss-class-weight",
        infogain_loss("dtrain_param { class_weight: 1 class_weight: 2 class_weight: 0 class_weight: 0.5 }"),
        ((4, 4), LABELS, MATRIX),
        partial(infogain_of_bottoms, class_weight=(1, 2, 0, 0.5)),
        batches=(),
    ),
    Row(
        "infogain-loss-axis-two-tops",
        infogain_loss("infogain_loss_param { axis: -1 } softmax_param { axis: 0 }"),
        ((2, 3, 4), PLANE_LABELS[:, :, 0], MATRIX),
        lambda scores, labels, matrix: (
            sum_over_places(partial(infogain, matrix=matrix), scores, labels, axis=2),
            probabilities(scores, 2),
        ),
        num_tops=2,
        batches=(),
    ),
)


@pytest.mark.parametrize(
    ("check", "row"),
    [
        case
        for case in cases(ROWS)
        # its forward writes to a diff, as Caffe's does; see test_hinge_loss_forward_…
        if not (case.values[0] is check_diff_rules and "Hinge" in case.values[1].type)
    ],
)
def test_class_loss_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_hinge_loss_forward_leaves_the_margins_in_the_scores_diff_as_caffe_recorded() -> None:
    with np.load(RECORDED / "hinge_l2.npz") as file:
        record = dict(file)
    rig = make_rig(
        hinge_loss("hinge_loss_param { norm: L2 }"), [record["in_x"], record["in_lab"]], dtype=np.float32
    )
    rig.forward()
    np.testing.assert_allclose(rig.bottom[0].diff, record["din_x"], rtol=1e-6)


def test_hinge_loss_backward_overwrites_the_diff_however_often_it_runs() -> None:
    rig = make_rig(hinge_loss(), [[[0.5, -2.0, 0.0]], [0]])
    rig.forward()
    for _ in range(2):
        rig.bottom[0].diff[...] = 7
        rig.backward([np.array(3.0)])
        np.testing.assert_array_equal(rig.bottom[0].diff, [[-3, 0, 3]])


def test_hinge_loss_without_propagate_down_leaves_what_forward_wrote() -> None:
    rig = make_rig(hinge_loss(), [[[0.5, -2.0, 0.0]], [0]])
    rig.forward()
    rig.backward([np.array(3.0)], [False, False])
    np.testing.assert_array_equal(rig.bottom[0].diff, [[0.5, 0, 1]])


def test_hinge_loss_at_the_margin_has_no_gradient() -> None:
    rig = make_rig(hinge_loss(), [[[1.0, -1.0]], [0]])
    assert rig.forward()[0] == 0
    rig.backward([np.array(1.0)])
    np.testing.assert_array_equal(rig.bottom[0].diff, 0)


def test_multinomial_loss_of_an_impossible_class_is_that_of_1e_20() -> None:
    rig = make_rig('type: "MultinomialLogisticLoss"', [[[1.0, 0.0]], [1]])
    np.testing.assert_allclose(rig.forward()[0], 20 * math.log(10))
    rig.backward([np.array(1.0)])
    np.testing.assert_allclose(rig.bottom[0].diff, [[0, -1e20]])


@pytest.mark.parametrize(
    ("score", "target", "loss", "slope"), [(1e4, 0, 1e4, 1), (-1e4, 1, 1e4, -1), (1e4, 1, 0, 0)]
)
def test_sigmoid_loss_of_large_scores_does_not_overflow(
    score: float, target: float, loss: float, slope: float
) -> None:
    rig = make_rig(sigmoid_loss(), [[[score]], [[target]]], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert rig.forward()[0] == loss
        rig.backward([np.array(1.0)])
    assert rig.bottom[0].diff == slope


def test_infogain_loss_of_an_impossible_class_is_that_of_1e_20() -> None:
    rig = make_rig(infogain_loss(), [[[1e3, 0.0]], [0], [[1.0, 2.0], [0.0, 0.0]]])
    np.testing.assert_allclose(rig.forward()[0], 2 * 20 * math.log(10))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infogain_loss_reads_its_matrix_from_a_file(tmp_path: Path, dtype: type[np.floating]) -> None:
    path = tmp_path / "H.binaryproto"
    path.write_bytes(
        caffe_pb2.BlobProto(num=1, channels=1, height=4, width=4, data=MATRIX.flat).SerializeToString()
    )
    row = Row(
        "infogain-loss-from-file",
        infogain_loss(f'infogain_loss_param {{ source: "{path}" }}'),
        ((4, 4), LABELS),
        lambda scores, labels: infogain_of_bottoms(scores, labels, MATRIX.astype(np.float32).astype(float)),
    )
    for case in cases([row]):
        check, _ = case.values
        check(row)


def test_infogain_loss_source_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "H.binaryproto").write_bytes(caffe_pb2.BlobProto(data=[1], num=1).SerializeToString())
    layer = make_layer(infogain_loss('infogain_loss_param { source: "H.binaryproto" }'), num_bottoms=2)
    layer.context = replace(layer.context, net_path=str(tmp_path / "net.prototxt"))
    with pytest.raises(DataError, match=f"^{tmp_path}/H.binaryproto: infogain_loss_param.source of shape"):
        layer.setup([Blob((1, 4)), Blob((1,))], [Blob()])


MISTAKES = [
    (hinge_loss(), ((2, 4), [0, 4]), "labels must be 0 to 3 (the scores have 4 classes), got 4"),
    (
        hinge_loss(),
        ((2, 4, 3), (2, 3)),
        "there must be one label per place: scores (2, 12) with their classes at axis 1 need 2, got 6 in shape "
        "(2, 3)",
    ),
    (
        'type: "MultinomialLogisticLoss"',
        ((2, 4), [0, -1]),
        "labels must be 0 to 3 (the scores have 4 classes), got -1",
    ),
    (
        'type: "MultinomialLogisticLoss"',
        ((2, 4), [0, 1, 2]),
        'the bottoms must have as many items, got (2, 4) from bottom 0 "x0" and (3,) from bottom 1 "x1"',
    ),
    (
        sigmoid_loss(),
        ((2, 4), (2, 3)),
        'there must be one target per score, got (2, 4) from bottom 0 "x0" and (2, 3) from bottom 1 "x1"',
    ),
    (
        infogain_loss("loss_param { normalize: true }"),
        ((2, 4), [0, 1], (4, 4)),
        "loss_param.normalize must be left out here; give normalization: VALID or BATCH_SIZE",
    ),
    (
        infogain_loss(),
        ((2, 4), [0, 1]),
        "infogain_loss_param.source must name a file with the matrix, got none; or give it as third bottom",
    ),
    (
        infogain_loss(),
        ((2, 4), [0, 1], (4, 3)),
        'bottom 2 "x2" must have 4 x 4 values for 4 classes, got 12 in shape (4, 3)',
    ),
    (
        infogain_loss("infogain_loss_param { axis: 2 }"),
        ((2, 4), [0, 1], (4, 4)),
        "infogain_loss_param.axis must be -2 to 1 for 2 axes, got 2",
    ),
]


@pytest.mark.parametrize(("layer", "inputs", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_class_loss_layer_mistake_is_one_sentence(
    layer: str, inputs: tuple[object, ...], message: str
) -> None:
    arrays = [np.zeros(given) if isinstance(given, tuple) else np.array(given) for given in inputs]
    with pytest.raises(UserError) as caught:
        make_rig(layer, arrays).forward()
    assert str(caught.value) == message


def test_infogain_loss_matrix_in_a_file_of_another_size_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "H.binaryproto"
    blob = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[3, 3]), data=range(9))
    path.write_bytes(blob.SerializeToString())
    with pytest.raises(UserError) as caught:
        make_rig(infogain_loss(f'infogain_loss_param {{ source: "{path}" }}'), [np.zeros((1, 4)), [0]])
    assert str(caught.value) == (
        f"{path}: infogain_loss_param.source must have 4 x 4 values for 4 classes, got 9 in shape (3, 3)"
    )
