"""The table and the JSON of predictions, whole."""

from __future__ import annotations

import json

from dtrain.launcher.simulation.cluster import Cluster
from dtrain.launcher.simulation.collectives import Network
from dtrain.launcher.simulation.links import Link
from dtrain.launcher.simulation.prediction import Machine, predict
from dtrain.launcher.simulation.report import report_json, report_lines
from tests.launcher.simulation.small_work import make_small_work

LINK = Link(0.0, 100.0)
WORK = make_small_work(update_s=8.0, reading_s=0.5)
MEMORY = {"params": 1_000_000, "history": 2_500_000, "scratch": 0}
MEMORY_LINES = ["  memory of a rank"]
CLUSTERS = [Cluster(1, 1), Cluster(2, 1)]


def test_report_lines_are_a_table_with_its_basis() -> None:
    machine = Machine(Network(LINK, Link(1e-6, 2e9)), "ring")
    assert report_lines("net: SGD solver", WORK, machine, predict(WORK, machine, CLUSTERS), MEMORY_LINES) == [
        "net: SGD solver",
        "  a rank alone: 8 images an iteration, forward 6000 ms, backward 1.5e+04 ms, update 8000 ms, "
        "reading 500 ms beside them",
        "  gradients: 0.00 MB in 2 buckets, 4 bytes a value on the way",
        "  link 1e-07GB/s,0us, inside a node 2GB/s,1us",
        "  ranks  nodes  iteration ms  all-reduce ms  hidden  efficiency  images/s  algorithm",
        "      1    1x1     29,000.00           0.00       -      100.0%         0  none",
        "      2    2x1     30,000.00       4,000.00   75.0%       96.7%         1  ring",
        "  memory of a rank",
    ]


def test_report_lines_say_what_shares_cores() -> None:
    machine = Machine(Network(LINK, LINK), "ring", cores=2, slowdown=1.25, overlaps=False)
    lines = report_lines("net", WORK, machine, [], MEMORY_LINES)
    assert lines[3].endswith(", 2 cores a node, slowdown 1.25, no overlap: the ranks' cores do the carrying")


def test_report_json_has_every_figure_in_seconds_and_bytes() -> None:
    machine = Machine(Network(LINK, LINK), "ring")
    predictions = predict(WORK, machine, CLUSTERS)
    document = json.loads(report_json(WORK, machine, predictions, MEMORY, ["a", "b", "c"]))
    assert document["layers"][1] == {"name": "b", "forward_s": 2.0, "backward_s": 5.0}
    assert (document["update_s"], document["reading_s"]) == (8.0, 0.5)
    assert document["buckets_bytes"] == [100, 300]
    assert document["machine"]["overlaps"] is True
    assert document["memory_bytes"] == MEMORY
    assert [size["world_size"] for size in document["sizes"]] == [1, 2]
    assert document["sizes"][1] == {
        "num_nodes": 2,
        "ranks_per_node": 1,
        "world_size": 2,
        "iteration_s": 30.0,
        "compute_s": 29.0,
        "all_reduce_s": 4.0,
        "hidden_share": 0.75,
        "efficiency": 29 / 30,
        "images_per_s": 16 / 30,
        "algorithms": ["ring"],
    }
