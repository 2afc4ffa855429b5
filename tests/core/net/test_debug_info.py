from __future__ import annotations

import logging

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.net.building import build_net
from dtrain.core.net.debug_info import mean_size, set_debug_info
from dtrain.core.net.net import Net
from dtrain.data.sampler import Shard
from tests.core.net_builder import inputs, make_net, make_recipe

# h = x·wᵀ, y = h·wᵀ with all w = −2 and all x = 1; the loss is Σ y² / 2
NET = (
    inputs(x=(1, 2), t=(1, 2))
    + """
    layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "h" param { name: "w" }
      inner_product_param { num_output: 2 bias_term: false } }
    layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "y" param { name: "w" } param { lr_mult: 0 }
      inner_product_param { num_output: 2 bias_filler { value: 0 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }"""
)
LINES = [
    "[Forward] Layer x, top blob x data: 1",
    "[Forward] Layer t, top blob t data: 0",
    "[Forward] Layer ip1, top blob h data: 4",
    "[Forward] Layer ip1, param blob w data: 2",
    "[Forward] Layer ip2, top blob y data: 16",
    "[Forward] Layer ip2, param blob w data: 2",
    "[Forward] Layer ip2, param blob 1 data: 0",
    "[Forward] Layer loss, top blob loss data: 256",
    "[Backward] Layer loss, bottom blob y diff: 16",
    "[Backward] Layer ip2, bottom blob h diff: 64",
    "[Backward] Layer ip2, param blob 0 diff: 64",
    "[Backward] Layer ip1, param blob 0 diff: 128",  # the diff of w has both gradients now
    "[Backward] All net params (data, diff): L1 norm = (8, 512); L2 norm = (4, 256)",
]


def make() -> Net:
    net = make_net(NET)
    net.params["ip1"][0].data[...] = -2
    net.blobs["x"].data[...] = 1
    return net


def run(net: Net, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    net.clear_param_diffs()
    net.forward()
    net.backward()
    return caplog.messages


def test_debug_info_logs_the_sizes_that_caffe_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        net = make()
        set_debug_info(net, True)
        assert run(net, caplog) == [f"    {line}" for line in LINES]


def test_debug_info_can_be_turned_on_and_off_again(caplog: pytest.LogCaptureFixture) -> None:
    others: list[int] = []
    with caplog.at_level(logging.INFO):
        net = make()
        net.callbacks.after_forward.append(others.append)
        for on in (True, True, False):
            set_debug_info(net, on)
            assert len(run(net, caplog)) == len(LINES) * on
    assert others == 3 * [0, 1, 2, 3, 4]  # what others had asked to be called goes on


@pytest.mark.parametrize("on", [True, False])
def test_build_net_turns_debug_info_on_where_the_net_file_says_so(
    on: bool, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe(f"debug_info: {str(on).lower()} {NET}")
    with caplog.at_level(logging.INFO):
        net = build_net(recipe, create_engine("reference"), Shard(0, 1))
        assert len(run(net, caplog)) == len(LINES) * on


def test_debug_info_that_nobody_would_see_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = make()
        set_debug_info(net, True)
        assert net.callbacks.after_forward == []


@pytest.mark.parametrize(("values", "expected"), [([], 0), ([-3], 3), ([[1, -2], [0, 5]], 2)])
def test_mean_size_is_the_mean_absolute_value(values: list[float], expected: float) -> None:
    assert mean_size(np.array(values, np.float32)) == expected
