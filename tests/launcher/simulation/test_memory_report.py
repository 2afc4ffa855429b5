"""The lines on a rank's memory: the sum and its parts, and which nets have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.net.net import Net
from dtrain.launcher.simulation.memory_report import fusion_lines, memory_lines, training_lines
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TEST, make_net
from tests.launcher.simulation.nets import DATA, build, dims, inner_product, loss

TEXT = DATA.format(data=dims(8, 16), target=dims(8, 32)) + inner_product("ip", "data", 32)
RECOMPUTING = caffe_pb2.DtrainSolverParameter(recompute=True)


def test_memory_lines_add_up_and_fit_the_page() -> None:
    parts = {f"part number {k}": k * 1_000_000 for k in range(20)}
    title, *lines = memory_lines(parts, caffe_pb2.SolverParameter(type="SGD"))
    assert title == "  memory of a rank in training (SGD): 190.0 MB"
    assert max(map(len, lines)) <= 100
    joined = " ".join(line.strip() for line in lines)
    assert joined == ", ".join(
        f"part number {k} {k}.0" for k in range(1, 20)
    )  # what takes nothing is left out


def test_memory_lines_say_that_a_solver_recomputes() -> None:
    solver = caffe_pb2.SolverParameter(type="Adam", dtrain_param=RECOMPUTING)
    title, *_ = memory_lines({"params": 1_500_000}, solver)
    assert title == "  memory of a rank in training (Adam, recomputing): 1.5 MB"


def test_training_lines_are_those_of_a_net_with_a_loss_in_training(tmp_path: Path) -> None:
    def lines(net: Net) -> list[str]:
        return training_lines(net, caffe_pb2.SolverParameter())

    trained, _ = build(tmp_path, TEXT + loss("ip"))
    assert lines(trained)[0].startswith("  memory of a rank in training (SGD): ")
    without_loss, _ = build(tmp_path, TEXT)
    assert lines(without_loss) == []
    assert lines(make_net(TEXT + loss("ip"), TEST)) == []


def test_fusion_lines_name_the_first_group_and_count_the_others() -> None:
    text = DATA.format(data=dims(8, 16), target=dims(8, 32))
    for name, below in (("a", "data"), ("b", "a"), ("c", "b")):
        text += inner_product(name, below, 32)
        text += f'layer {{ name: "relu_{name}" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    try:
        engine = create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    net = make_net(text + loss("c"), engine=engine)
    assert fusion_lines(net) == []
    net.fuse()
    assert fusion_lines(net) == [
        "    there layers run as one, and what lies between takes nothing: a + relu_a and 2 groups more"
    ]
