from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.arena import Arena
from dtrain.core.net.net import Net
from dtrain.core.snapshots import LayerWeights
from dtrain.core.solver.weight_average import WeightAverage
from dtrain.dist.communicator import Communicator
from tests.core.net_builder import inputs, make_net
from tests.core.solver.ranks import SEVERAL, OnRanks

NET = (
    inputs(x=(2, 300))
    + """
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { } param { lr_mult: 0 }
      inner_product_param { num_output: 400 } }"""
)  # 120,000 learned values: two pieces


def make_average(decay: float) -> tuple[Net, WeightAverage]:
    net = make_net(NET)
    return net, WeightAverage(Arena(net.param_table.with_gradients), decay)


def weight_of(net: Net) -> np.ndarray:
    return net.params["ip"][0].data


def shown_in(net: Net, average: WeightAverage) -> np.ndarray:
    with average.shown():
        return weight_of(net).copy()


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_shown_is_the_mean_of_all_weights_the_later_ones_counting_more(decay: float) -> None:
    net, average = make_average(decay)
    random, entered = np.random.default_rng(0), []
    for t in range(1, 6):
        weight_of(net)[...] = random.standard_normal((400, 300))
        entered.append(weight_of(net).astype(np.float64))
        average.enter()
        shares = decay ** np.arange(t)[::-1]
        expected = np.tensordot(shares, np.array(entered), 1) / shares.sum()
        np.testing.assert_allclose(shown_in(net, average), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(weight_of(net), entered[-1].astype(np.float32))
    assert average.num_updates == 5


def test_shown_gives_the_weights_back_whatever_happens() -> None:
    net, average = make_average(0.5)
    for value in (1, 4):
        weight_of(net)[...] = value
        average.enter()

    def fail() -> None:
        with average.shown():
            assert (weight_of(net) == 3).all()  # (0.5·1 + 4) / 1.5
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (weight_of(net) == 4).all()
    assert (shown_in(net, average) == 3).all()


def test_shown_before_the_first_update_and_without_decay_is_the_weights() -> None:
    for decay in (0.5, 0.0):
        net, average = make_average(decay)
        weight_of(net)[...] = 7
        assert (shown_in(net, average) == 7).all()
    average.enter()
    assert average.num_updates == 0
    assert not average.is_on


def test_shown_leaves_params_that_do_not_learn_alone() -> None:
    net, average = make_average(0.5)
    bias = net.params["ip"][1].data
    bias[...] = 1
    average.enter()
    bias[...] = 2
    with average.shown():
        assert (bias == 2).all()


def test_shown_is_seen_by_nets_that_share_the_params() -> None:
    net, average = make_average(0.5)
    test_net = make_net(NET)
    test_net.share_params_with(net)
    for value in (1, 4):
        weight_of(net)[...] = value
        average.enter()
    with average.shown():
        assert (weight_of(test_net) == 3).all()


def test_forget_begins_with_the_next_update() -> None:
    net, average = make_average(0.5)
    weight_of(net)[...] = 1e30
    average.enter()
    average.forget()
    assert average.num_updates == 0
    weight_of(net)[...] = 0.1
    average.enter()
    np.testing.assert_array_equal(shown_in(net, average), np.float32(0.1))


def test_read_takes_the_averages_of_a_file_and_goes_on_from_them() -> None:
    net, average = make_average(0.5)
    weights = LayerWeights("ip", "InnerProduct", (np.full((400, 300), 3.0), np.zeros(400)))
    average.read(net, [weights], "x.ema.caffemodel")
    average.num_updates = 2
    weight_of(net)[...] = 10
    assert (shown_in(net, average) == 3).all()
    average.enter()  # (0.25 + 0.5)·3 + 10, over 1.75
    np.testing.assert_allclose(shown_in(net, average), (0.75 * 3 + 10) / 1.75, rtol=1e-6)


def test_read_of_another_net_is_refused() -> None:
    net, average = make_average(0.5)
    weights = LayerWeights("ip", "InnerProduct", (np.ones((4, 3)), np.zeros(4)))
    with pytest.raises(UserError, match=r"^x: param 0 of layer \"ip\" must be \(400, 300\)"):
        average.read(net, [weights], "x")
    assert not weight_of(net).any()


def test_broadcast_gives_all_ranks_the_averages_of_rank_0(on_ranks: OnRanks) -> None:
    def body(communicator: Communicator) -> tuple[int, float]:
        net, average = make_average(0.5)
        if communicator.rank == 0:
            weight_of(net)[...] = 3
            average.enter()
        average.broadcast(1, communicator)
        shown = shown_in(net, average)
        return average.num_updates, float(shown.min() + shown.max())

    assert on_ranks(SEVERAL, body) == [(1, 6.0)] * SEVERAL
