"""A small net, its history and its manifest, for all tests of snapshots."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dtrain
from dtrain.core.snapshots import LayerRecord, Manifest, Snapshot, SnapshotStore
from dtrain.core.snapshots.formats import FORMATS
from dtrain.proto import caffe_pb2


@pytest.fixture
def layers() -> list[LayerRecord]:
    """Two layers with blobs and one without."""
    return [
        LayerRecord(
            caffe_pb2.LayerParameter(name="conv", type="Convolution", bottom=["data"], top=["conv"]),
            [np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2), np.array([-1.5, 2.5], np.float32)],
        ),
        LayerRecord(caffe_pb2.LayerParameter(name="relu", type="ReLU"), []),
        LayerRecord(
            caffe_pb2.LayerParameter(name="ip", type="InnerProduct"),
            [np.linspace(0, 1, 6).reshape(2, 3)],
        ),
    ]


@pytest.fixture
def history() -> list[np.ndarray]:
    """Two history arrays, in float32 and float64."""
    return [np.full((2, 2), 0.25, np.float32), np.array([1e-300, -7.0])]


@pytest.fixture
def manifest() -> Manifest:
    """The manifest of iteration 10 on two ranks, without files."""
    return Manifest(
        iteration=10,
        world_size=2,
        batch_sizes={"digits": 32},
        positions={"digits": 640},
        epoch=0,
        seed=1701,
        current_step=1,
        losses=(0.5, 0.1),
        pass_index=11,
    )


@pytest.fixture(params=FORMATS)
def store(tmp_path: Path, request: pytest.FixtureRequest) -> SnapshotStore:
    """A store whose folder does not exist yet, in each format."""
    return SnapshotStore(tmp_path / "snapshots" / "net", FORMATS[request.param])


@pytest.fixture
def write(
    store: SnapshotStore, layers: list[LayerRecord], history: list[np.ndarray], manifest: Manifest
) -> Callable[[int], Snapshot]:
    """Write the small net as the snapshot of an iteration."""

    def write_iteration(iteration: int) -> Snapshot:
        return store.write("small", layers, history, replace(manifest, iteration=iteration))

    return write_iteration


@pytest.fixture
def damaged() -> Callable[[bytes], list[bytes]]:
    """Make of a file's bytes every cut, and a flipped bit in every byte (another one from byte to byte)."""

    def damage(content: bytes) -> list[bytes]:
        cuts = [content[:length] for length in range(len(content))]
        flips = []
        for position in range(len(content)):
            flipped = bytearray(content)
            flipped[position] ^= 1 << position % 8
            flips.append(bytes(flipped))
        return cuts + flips

    return damage


@pytest.fixture
def python_environment() -> dict[str, str]:
    """The environment in which another Python process finds this dtrain."""
    return {**os.environ, "PYTHONPATH": str(Path(dtrain.__file__).parents[1])}
