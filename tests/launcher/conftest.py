"""A small run for the tests of the launcher: a solver and a net that need no data, in a folder of their own."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.launcher.console import Console
from dtrain.launcher.log import install_log

NET = """\
name: "tiny"
layer {
  name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param {
    shape { dim: 4 dim: 3 }
    shape { dim: 4 dim: 2 }
    data_filler { type: "constant" value: 1 }
    data_filler { type: "constant" value: 2 }
  }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""

SOLVER = """\
net: "net.prototxt"
base_lr: 0.01
lr_policy: "fixed"
max_iter: 6
display: 2
test_iter: 3
test_interval: 3
snapshot: 2
snapshot_prefix: "snapshots/tiny"
random_seed: 1
"""


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Take out what a command has set for its process, such as numbers of threads: later tests start jobs."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, in which net.prototxt and solver.prototxt are."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bf16() -> None:
    """Skip the test where nets can't be computed in bf16."""
    try:
        create_engine("onednn", "BF16")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def log_text() -> Iterator[io.StringIO]:
    """Take the log for the test, as a command of rank 0 does, and give pytest's back to logging afterwards."""
    import logging

    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    install_log(Console(stream), 0, "here")
    yield stream
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level
