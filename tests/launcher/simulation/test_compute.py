"""Costs from counted operations, from files, and from the clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.launcher.simulation.compute import (
    costs_from_file,
    costs_from_flops,
    iterations_within,
    measure_costs,
    measure_reading,
    measure_update,
)
from dtrain.launcher.simulation.work import Costs
from dtrain.proto import caffe_pb2
from tests.launcher.simulation.nets import DATA, build, dims, inner_product, loss

HEADER = "layer,forward_ms,backward_ms\n"


@pytest.fixture
def net(tmp_path: Path) -> Net:
    text = DATA.format(data=dims(8, 16), target=dims(8, 3)) + inner_product("ip", "data", 3) + loss("ip")
    return build(tmp_path, text)[0]


def test_costs_from_flops_divides_by_what_is_reached(net: Net) -> None:
    costs = costs_from_flops(net, 1e6, 0.5)
    assert costs.forward_s[1] == pytest.approx(2 * 8 * 16 * 3 / 0.5e6)
    assert costs.backward_s[1] == pytest.approx(2 * 8 * 16 * 3 / 0.5e6)
    assert costs.update_s == pytest.approx(8 * (16 * 3 + 3) / 0.5e6)
    assert costs.reading_s == 0


def test_costs_from_file_reads_each_layer_and_the_rest(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text(HEADER + "ip,2,4\nloss,0.5,1e-1\n(update),3,0\ndata,1,0\n(reading),7,0\n")
    expected = Costs((1e-3, 2e-3, 5e-4), (0.0, 4e-3, 1e-4), 3e-3, 7e-3)
    assert costs_from_file(net, str(path)) == expected


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", [":1: the first line must be layer,forward_ms,backward_ms"]),
        ("ip,2,4\n", [":1: the first line must be layer,forward_ms,backward_ms"]),
        (
            HEADER + "ip,2,4\nip2,2,4\n",
            [
                ': every layer of the net must have a row, layer "data" has none',
                ': every layer of the net must have a row, layer "loss" has none',
                ': layer "ip2" must be one of the net, which has no such layer',
            ],
        ),
        (
            HEADER + "ip,2\ndata,-1,0\nloss,x,0\nip,nan,1\n",
            [f":{k}: must be a layer and two times in ms, each layer once, got " for k in (2, 3, 4, 5)],
        ),
    ],
)
def test_costs_from_file_tells_all_that_is_wrong(
    net: Net, tmp_path: Path, text: str, problems: list[str]
) -> None:
    path = tmp_path / "times.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        costs_from_file(net, str(path))
    found = caught.value.problems
    assert len(found) == len(problems)
    for line, problem in zip(found, problems, strict=True):
        assert line.startswith(f"{path}{problem}")


def test_costs_from_file_that_is_missing_says_so(net: Net, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--compute: .*absent.csv must be a CSV file that can be read"):
        costs_from_file(net, str(tmp_path / "absent.csv"))


def test_measure_costs_times_every_layer(net: Net) -> None:
    costs = measure_costs(net, caffe_pb2.SolverParameter(), 0.01)
    assert len(costs.forward_s) == len(costs.backward_s) == len(net.layers)
    assert min(costs.forward_s) > 0
    assert costs.update_s > 0
    assert costs.reading_s == 0


@pytest.mark.parametrize(
    ("seconds", "iteration_s", "num_iterations"), [(2, 0.1, 20), (2, 10, 5), (2, 1e-3, 100), (2, 0, 100)]
)
def test_iterations_within_a_time_are_neither_few_nor_many(
    seconds: float, iteration_s: float, num_iterations: int
) -> None:
    assert iterations_within(seconds, iteration_s) == num_iterations


@pytest.mark.parametrize("name", sorted(UPDATE_RULES))
def test_measure_update_runs_every_rule(name: str) -> None:
    assert measure_update(caffe_pb2.SolverParameter(type=name), 70_000) > 0


def test_measure_reading_times_batches_and_leaves_the_net_ready(tmp_path: Path) -> None:
    image = np.zeros((1, 4, 4), np.uint8)
    write_lmdb(tmp_path / "lmdb", ((b"%08d" % k, encode_datum(image, k)) for k in range(10)))
    text = (
        'layer { name: "data" type: "Data" top: "data" top: "label" '
        f'data_param {{ source: "{tmp_path}/lmdb" backend: LMDB batch_size: 4 }} }}\n'
    )
    net, _ = build(tmp_path, text)
    assert measure_reading(net) > 0
    net.forward()
    assert net.blobs["label"].data.tolist() == [0, 1, 2, 3]
    net.close()
