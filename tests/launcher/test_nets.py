"""Building a net without a solver."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.graph.net_recipe import read_net
from dtrain.data.sampler import Shard
from dtrain.launcher.nets import build_net
from dtrain.proto import caffe_pb2


@pytest.mark.parametrize(("phase", "deal"), [(caffe_pb2.TRAIN, "records"), (caffe_pb2.TEST, "batches")])
def test_build_net_by_phase_deals_records_or_batches(run_folder: Path, phase: int, deal: str) -> None:
    shard = Shard(1, 3)
    net = build_net(read_net("net.prototxt", phase), create_engine(), shard, seed=7)
    assert (net.phase, net.context.deal, net.context.shard) == (phase, deal, shard)
    assert net.context.net_path == "net.prototxt"
    assert (net.context.random.seed, net.context.random.rank) == (7, 1)
