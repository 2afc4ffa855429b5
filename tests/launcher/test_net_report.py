"""The report on a net, counted by hand for the small net of conftest.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.net.building import build_net
from dtrain.data.sampler import Shard
from dtrain.launcher.net_report import align, data_line, megabytes, net_report, shape_text
from dtrain.proto import caffe_pb2


def test_net_report_of_a_small_net_counts_its_params(run_folder: Path) -> None:
    net = build_net(read_net("net.prototxt", caffe_pb2.TRAIN), create_engine(), Shard(0, 1))
    assert net_report(net) == [
        'TRAIN net "tiny" (net.prototxt), 3 layers',
        "  layer  type           tops                  params",
        "  data   DummyData      data 4x3, target 4x2",
        "  ip     InnerProduct   ip 4x2                     8",  # 2x3 weights and 2 biases
        "  loss   EuclideanLoss  loss scalar",
        "  memory: 8 params, 0.0 MB of data and of diff each; blobs 0.0 MB each",
    ]


@pytest.mark.parametrize(("shape", "text"), [((), "scalar"), ((5,), "5"), ((64, 1, 28, 28), "64x1x28x28")])
def test_shape_text_of_shapes(shape: tuple[int, ...], text: str) -> None:
    assert shape_text(shape) == text


def test_megabytes_of_floats_counts_four_bytes_each() -> None:
    assert megabytes(250_000) == "1.0 MB"


def test_align_pads_columns_and_sets_numbers_to_the_right() -> None:
    assert align([("a", "b", "c", "7"), ("aaa", "b", "cc", "1,000")]) == [
        "  a    b  c       7",
        "  aaa  b  cc  1,000",
    ]


@pytest.mark.parametrize(
    ("world_size", "line"),
    [
        (
            1,
            '  data layer "mnist": 60,000 records; batch_size 64 on 1 rank: '
            "64 records a pass, 60,000 records a rank and 937.5 passes an epoch",
        ),
        (
            4,
            '  data layer "mnist": 60,000 records; batch_size 64 on each of 4 ranks: '
            "256 records a pass, 15,000 records a rank and 234.375 passes an epoch",
        ),
    ],
)
def test_data_line_by_ranks_shares_the_records(world_size: int, line: str) -> None:
    loader = SimpleNamespace(num_records=60_000, batch_size=64)
    layer: Any = SimpleNamespace(name="mnist", loader=loader, records_per_pass=64 * world_size)
    assert data_line(layer, world_size) == line
