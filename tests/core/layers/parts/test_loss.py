"""What a loss is divided by, and where its weight comes from."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from dtrain.core.blob import Blob
from dtrain.core.layers.parts.loss import loss_weight, normalization_of, normalizer
from dtrain.proto import caffe_pb2

LossParameter = caffe_pb2.LossParameter


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", LossParameter.BATCH_SIZE),
        ("normalize: true", LossParameter.VALID),
        ("normalize: false", LossParameter.BATCH_SIZE),
        ("normalization: NONE", LossParameter.NONE),
        ("normalization: FULL normalize: false", LossParameter.FULL),
    ],
)
def test_normalization_prefers_the_new_field(
    text: str, mode: caffe_pb2.LossParameter.NormalizationMode
) -> None:
    assert normalization_of(text_format.Parse(text, LossParameter()), LossParameter.BATCH_SIZE) == mode


@pytest.mark.parametrize(
    ("mode", "divisor"),
    [
        (LossParameter.FULL, 12),
        (LossParameter.VALID, 5),
        (LossParameter.BATCH_SIZE, 3),
        (LossParameter.NONE, 1),
    ],
)
def test_normalizer_of_each_mode(mode: caffe_pb2.LossParameter.NormalizationMode, divisor: int) -> None:
    assert normalizer(mode, num_outer=3, num_inner=4, num_valid=5) == divisor


def test_normalizer_of_nothing_is_1() -> None:
    assert normalizer(LossParameter.VALID, num_outer=3, num_inner=4, num_valid=0) == 1


def test_loss_weight_is_the_diff_of_the_top() -> None:
    top = Blob(())
    top.diff[...] = 2.5
    assert loss_weight([top]) == 2.5
