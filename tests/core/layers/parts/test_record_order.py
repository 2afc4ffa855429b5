"""Tests of core/layers/parts/record_order.py."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.layers import LAYERS, LayerContext
from dtrain.core.layers.parts.record_order import make_sampler
from dtrain.core.random_streams import RandomStreams
from dtrain.data.sampler import Sampler, Shard
from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import parse_layer

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
NUM_RECORDS, SEED = 100, 6


def sampler_of(extra: str, phase: int = TRAIN, shuffle_always: bool = False) -> Sampler:
    param = parse_layer(f'type: "Data" dtrain_param {{ {extra} }}')
    context = LayerContext(phase, create_engine("reference"), RandomStreams(SEED), Shard(0, 1))
    return make_sampler(LAYERS["Data"](param, context), NUM_RECORDS, shuffle_always)


def epoch_of(sampler: Sampler) -> list[int]:
    return [int(record) for record in sampler.records(np.arange(NUM_RECORDS))[1]]


@pytest.mark.parametrize(
    ("extra", "phase", "always", "is_shuffled"),
    [
        ("", TRAIN, False, False),
        ("shuffle: true", TRAIN, False, True),
        ("shuffle: true", TEST, False, False),
        ("", TEST, True, True),
        ("shuffle: true shuffle_block: 10", TEST, False, False),
        ("shuffle_block: 10", TEST, True, True),
    ],
)
def test_make_sampler_shuffles_where_it_is_asked_to(
    extra: str, phase: int, always: bool, is_shuffled: bool
) -> None:
    found = epoch_of(sampler_of(extra, phase, always))
    assert (found != list(range(NUM_RECORDS))) == is_shuffled
    assert sorted(found) == list(range(NUM_RECORDS))


def test_make_sampler_with_blocks_mixes_so_many_at_a_time() -> None:
    found = epoch_of(sampler_of("shuffle: true shuffle_block: 10 shuffle_blocks_mixed: 2"))
    groups = [sorted({record // 10 for record in found[first : first + 20]}) for first in range(0, 100, 20)]
    assert [len(group) for group in groups] == [2] * 5
    assert sorted(sum(groups, [])) == list(range(10))
    assert found != sorted(found)


def test_make_sampler_with_blocks_mixes_16_by_default() -> None:
    found = epoch_of(sampler_of("shuffle: true shuffle_block: 5"))
    assert [len({record // 5 for record in found[:80]}), len({record // 5 for record in found[80:]})] == [
        16,
        4,
    ]


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("shuffle_block: 10", "shuffle_block is looked at with shuffle: true alone; take it out"),
        (
            "shuffle: true shuffle_blocks_mixed: 2",
            "shuffle_blocks_mixed is looked at with a shuffle_block alone; take it out",
        ),
        (
            "shuffle: true shuffle_block: 10 shuffle_blocks_mixed: 0",
            "shuffle_blocks_mixed must be at least 1, got 0",
        ),
    ],
)
def test_make_sampler_of_fields_that_nothing_looks_at_raises(extra: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        sampler_of(extra)
    assert str(caught.value) == f"dtrain_param.{problem}"
