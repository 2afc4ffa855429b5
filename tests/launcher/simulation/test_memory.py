"""A rank's memory: counted by hand, and compared with what a process really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dtrain.launcher.simulation.memory import count_memory, find_arrays, measure_temporary, owner_of
from dtrain.proto import caffe_pb2
from tests.conftest import ROOT
from tests.launcher.simulation.nets import DATA, build, dims, inner_product, loss

LINE = 64


def ip_net(folder: Path) -> tuple:
    text = DATA.format(data=dims(8, 16), target=dims(8, 32)) + inner_product("ip", "data", 32)
    relu = 'layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }\n'
    return build(folder, text + relu + loss("ip"))


def test_count_memory_of_a_small_net_is_the_count_by_hand(tmp_path: Path) -> None:
    net, arena = ip_net(tmp_path)
    params = 4 * (16 * 32 + 32)
    assert count_memory(net, arena, caffe_pb2.SolverParameter(type="Adam")) == {
        "params": params,
        "gradients": LINE + params,
        "history": 2 * params,
        "blobs": 4 * (8 * 16 + 8 * 32 + 8 * 32 + 1),  # data, target, ip (in place), loss
        "blob gradients": 4 * (8 * 32 + 1),
        "batches": 0,
        "scratch": 0,
        "temporary": 0,
    }


def test_count_memory_with_extras_counts_their_copies(tmp_path: Path) -> None:
    net, arena = ip_net(tmp_path)
    extra = caffe_pb2.DtrainSolverParameter(ema_decay=0.9, wire_precision="FLOAT16", stale_gradients=True)
    memory = count_memory(net, arena, caffe_pb2.SolverParameter(type="SGD", dtrain_param=extra))
    params = 4 * (16 * 32 + 32)
    assert memory["history"] == 2 * params  # momentum and the average
    assert memory["gradients"] == 3 * (LINE + params) + (LINE + params) // 2


def test_count_memory_of_fixed_params_counts_no_gradients_of_theirs(tmp_path: Path) -> None:
    fixed = "param { lr_mult: 0 } param { lr_mult: 0 }"
    text = DATA.format(data=dims(8, 16), target=dims(8, 32)) + inner_product("a", "data", 32, fixed)
    net, arena = build(tmp_path, text + inner_product("b", "a", 32) + loss("b"))
    memory = count_memory(net, arena, caffe_pb2.SolverParameter())
    assert memory["params"] == 4 * (16 * 32 + 32) + 4 * (32 * 32 + 32)
    assert memory["gradients"] == LINE + 4 * (32 * 32 + 32)


def test_find_arrays_follows_attributes_and_containers_and_stops_at_code() -> None:
    wanted = [np.zeros(k + 1) for k in range(3)]
    root = SimpleNamespace(a=wanted[0], b={"c": [wanted[1]]}, d=(wanted[2], wanted[0]), code=np, kind=dict)
    assert sorted(len(array) for array in find_arrays(root)) == [1, 2, 3]


def test_owner_of_a_view_is_the_array_below() -> None:
    array = np.zeros(8)
    assert owner_of(array[2:].reshape(2, 3)) is array
    assert owner_of(array) is array


def test_measure_temporary_of_an_inner_product_is_the_gradient_that_it_adds(tmp_path: Path) -> None:
    text = (
        DATA.format(data=dims(2, 1000), target=dims(2, 500)) + inner_product("ip", "data", 500) + loss("ip")
    )
    net, _ = build(tmp_path, text)
    net.forward()
    net.backward()
    assert measure_temporary(net) == pytest.approx(4 * 500 * 1000, rel=0.1)


TRAIN = """
import json, os, re, sys
from pathlib import Path
from dtrain.core.engines import create_engine
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.create import create_communicator
from dtrain.launcher.simulation.memory import count_memory, measure_temporary

def resident(word):
    return int(re.search(rf"{word}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

recipe, engine, communicator = read_recipe(sys.argv[1]), create_engine("reference"), create_communicator("single", {})
before = resident("VmRSS")
solver = Solver(recipe, engine=engine, communicator=communicator)
solver.step(2)
grown = resident("VmHWM") - before
temporary = measure_temporary(solver.net)
print(json.dumps([grown, sum(count_memory(solver.net, solver.arena, recipe.solver, temporary).values())]))
solver.close()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says here what a process takes")
def test_count_memory_of_a_trained_net_is_what_the_process_grew_by(tmp_path: Path) -> None:
    window = "convolution_param { num_output: 16 kernel_size: 3 pad: 1 }"
    text = (
        DATA.format(data=dims(16, 8, 128, 128), target=dims(16, 400))
        + f'layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" {window} }}\n'
        + 'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }\n'
        + 'layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" '
        + "pooling_param { kernel_size: 4 stride: 4 } }\n"
        + inner_product("ip", "pool", 400)
        + loss("ip")
    )
    (tmp_path / "net.prototxt").write_text(text)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt"\nbase_lr: 1e-9\nlr_policy: "fixed"\nmomentum: 0.9\nmax_iter: 2\n')
    command = [sys.executable, "-c", TRAIN, str(solver)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    grown, counted = json.loads(done.stdout)
    assert counted > 100e6
    assert counted == pytest.approx(grown, rel=0.1)
