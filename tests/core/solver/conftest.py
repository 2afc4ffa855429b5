"""A small database and runs that train on it, for all tests of solvers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.data.lmdb_writer import write_lmdb
from dtrain.proto import caffe_pb2
from tests.core.solver.ranks import shared_path
from tests.core.solver.small_runs import NUM_CLASSES, NUM_RECORDS, SmallRuns


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an LMDB of 8x8 grey images, each of noise with a bright column where its class says."""
    path = shared_path(tmp_path_factory.mktemp("database")) / "lmdb"
    random = np.random.default_rng(5)
    records = []
    for index in range(NUM_RECORDS):
        label = index * 7 % NUM_CLASSES
        image = random.integers(0, 120, (8, 8), dtype=np.uint8)
        image[:, 1 + 2 * label] += 120
        datum = caffe_pb2.Datum(channels=1, height=8, width=8, label=label, data=image.tobytes())
        records.append((b"%08d" % index, datum.SerializeToString()))
    if not path.exists():
        write_lmdb(path, records)
    return str(path)


@pytest.fixture
def runs(tmp_path: Path, database: str) -> SmallRuns:
    """Return the writer of the test's solver and net files."""
    return SmallRuns(shared_path(tmp_path), database)
