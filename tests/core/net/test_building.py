"""What a net is told of its surroundings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.graph.net_recipe import NetRecipe, read_net
from dtrain.core.net.building import build_net
from dtrain.core.net.scores import Score
from dtrain.core.solver.testing import run_test_pass
from dtrain.data.sampler import Shard
from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import run_ranks
from dtrain.proto import caffe_pb2

NET = """
layer { name: "noise" type: "DummyData" top: "x" dummy_data_param {
  shape { dim: 2 dim: 3 } data_filler { type: "gaussian" std: 1 } } }
"""


@pytest.fixture(autouse=True)
def net_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)


def recipe(phase: int) -> NetRecipe:
    return read_net("net.prototxt", phase)


@pytest.mark.parametrize(
    ("phase", "deal", "rank"), [(caffe_pb2.TRAIN, "records", 1), (caffe_pb2.TEST, "batches", 0)]
)
def test_build_net_by_phase_deals_records_or_batches(phase: int, deal: str, rank: int) -> None:
    shard = Shard(1, 3)
    net = build_net(recipe(phase), create_engine(), shard, seed=7)
    assert (net.phase, net.context.deal, net.context.shard) == (phase, deal, shard)
    assert net.context.net_path == "net.prototxt"
    assert (net.context.random.seed, net.context.random.rank) == (7, rank)


def test_build_net_with_recurrent_layers_deals_whole_batches_in_training_too() -> None:
    Path("net.prototxt").write_text("""
        layer { name: "x" type: "Input" top: "x" top: "c"
          input_param { shape { dim: [4, 2, 3] } shape { dim: [4, 2] } } }
        layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "c" top: "h" recurrent_param { num_output: 2 } }
    """)
    net = build_net(recipe(caffe_pb2.TRAIN), create_engine(), Shard(1, 3), seed=7)
    assert (net.context.deal, net.context.random.rank) == ("batches", 1)


@pytest.mark.parametrize(("kind", "num_ranks"), [("LSTM", 1), ("LSTMUnit", 3)])
def test_build_net_that_carries_a_state_is_tested_whole_on_every_rank(kind: str, num_ranks: int) -> None:
    bottoms = {"LSTM": 'bottom: "x" bottom: "c"', "LSTMUnit": 'bottom: "c1" bottom: "g" bottom: "c"'}[kind]
    tops = {"LSTM": 'top: "h" recurrent_param { num_output: 2 }', "LSTMUnit": 'top: "ct" top: "ht"'}[kind]
    Path("net.prototxt").write_text(f"""
        layer {{ name: "x" type: "Input" top: "x" top: "c" top: "c1" top: "g"
          input_param {{ shape {{ dim: [1, 2, 3] }} shape {{ dim: [1, 2] }} shape {{ dim: [1, 2, 3] }}
            shape {{ dim: [1, 2, 12] }} }} }}
        layer {{ name: "l" type: "{kind}" {bottoms} {tops} }}
    """)
    net = build_net(recipe(caffe_pb2.TEST), create_engine(), Shard(0, 3))
    assert net.context.shard == Shard(0, num_ranks)


def test_build_net_told_what_to_deal_deals_that_in_any_phase() -> None:
    net = build_net(recipe(caffe_pb2.TEST), create_engine(), Shard(1, 3), deal="records")
    assert (net.context.deal, net.context.random.rank) == ("records", 1)


def test_build_net_for_tests_scores_random_layers_alike_on_any_number_of_ranks() -> None:
    def scores(communicator: Communicator) -> list[Score]:
        shard = Shard(communicator.rank, communicator.world_size)
        net = build_net(recipe(caffe_pb2.TEST), create_engine(), shard, seed=7)
        return run_test_pass(net, 5, communicator)[0]

    ((alone,), several) = run_ranks(1, scores), run_ranks(3, scores)
    assert np.ptp([score.value for score in alone]) > 0
    assert several == [alone] * 3
