"""Files of a small net and solver, and a state of the thread that is put back after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.caffe_state import STATE
from tests.core.net_builder import inputs

NET = (
    'name: "two"\nforce_backward: true\n'
    + inputs(x=(2, 3), z=(2, 1))
    + """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 weight_filler { type: "gaussian" } bias_filler { value: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "z" top: "loss" include { phase: TRAIN } }
layer { name: "tanh" type: "TanH" bottom: "y" top: "tanh" include { phase: TEST } }
layer { name: "silence" type: "Silence" bottom: "z" include { phase: TEST } }
layer { name: "deep" type: "TanH" bottom: "tanh" top: "deep" include { stage: "deep" min_level: 2 } }
"""
)
X, Z = np.array([[1.0, 2, 3], [-1, 0, 1]]), np.array([[0.25], [1]])
WEIGHTS = np.array([[1.0, 2, 3]])
Y = X @ WEIGHTS.T + 0.5
GRADIENT = ((Y - Z) / 2).T @ X  # of the weights, of loss = Σ(y − z)² / 2N


@pytest.fixture(autouse=True)
def _thread_state() -> Iterator[None]:
    STATE.__init__()  # type: ignore[misc]  # as in a new thread
    yield
    STATE.__init__()  # type: ignore[misc]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with net.prototxt and solver.prototxt."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 random_seed: 1 snapshot_prefix: "s"\n'
        "test_iter: 1 test_interval: 100 test_initialization: false"
    )
    return tmp_path


@pytest.fixture
def net(folder: Path) -> caffe.Net:
    """Return the net in TRAIN with WEIGHTS."""
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.params["ip"][0].data[...] = WEIGHTS
    return net


@pytest.fixture
def scoring_net(folder: Path) -> caffe.Net:
    """Return the net in TEST with WEIGHTS."""
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = WEIGHTS
    return net
