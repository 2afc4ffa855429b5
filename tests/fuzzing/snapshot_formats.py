"""Files of snapshots, each alone and as part of one with a manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dtrain.core.snapshots import (
    LayerRecord,
    LayerWeights,
    Manifest,
    SnapshotStore,
    SolverState,
    load_snapshot,
    load_weights,
)
from dtrain.core.snapshots.formats import FORMATS, format_of
from dtrain.proto import caffe_pb2
from tests.fuzzing import prototxts
from tests.fuzzing.format import Format, look_at

ITERATION = 4


def make_snapshot(folder: Path, format_name: str, name: str) -> SnapshotStore:
    """Write a whole snapshot into the folder."""
    store = SnapshotStore(folder / name, FORMATS[format_name])
    random = np.random.default_rng(0)
    conv = caffe_pb2.LayerParameter(name="conv1", type="Convolution", bottom=["data"], top=["conv1"])
    weights = [random.standard_normal((2, 1, 3, 3)).astype(np.float32), np.zeros(2, np.float32)]
    layers = [
        LayerRecord(conv, weights, weights),
        LayerRecord(caffe_pb2.LayerParameter(name="relu", type="ReLU"), []),
        LayerRecord(
            caffe_pb2.LayerParameter(name="ip", type="InnerProduct"), [random.standard_normal((3, 2))]
        ),
    ]
    manifest = Manifest(ITERATION, 2, {"digits": 32}, {"digits": 640}, 0, 1701, 1, (0.5, 0.25), 4)
    store.write("small", layers, weights, manifest)
    return store


def model_maker(format_name: str) -> Callable[[Path], list[bytes]]:
    """Return the function that makes .caffemodel files of a format."""

    def make(folder: Path) -> list[bytes]:
        whole = make_snapshot(folder, format_name, "whole").model_path(ITERATION).read_bytes()
        return [whole] if format_name == "HDF5" else [whole, *prototxts.old_models()]

    return make


def state_maker(format_name: str) -> Callable[[Path], list[bytes]]:
    """Return the function that makes .solverstate files of a format."""
    return lambda folder: [make_snapshot(folder, format_name, "whole").state_path(ITERATION).read_bytes()]


def read_model(path: Path) -> None:
    """Read a .caffemodel of any format."""
    look_at_layers(load_weights(path))


def look_at_layers(layers: list[LayerWeights]) -> None:
    """Read all weights of a model, and compare their shapes with that of a param."""
    for layer in layers:
        for i, blob in enumerate(layer.blobs):
            if blob is not None:
                look_at(blob)
                layer.has_shape(i, (2, 1, 3, 3))


def read_state(path: Path) -> None:
    """Read a .solverstate of any format."""
    look_at_state(format_of(path).read_state(path))


def look_at_state(state: SolverState) -> None:
    """Read all of a solver's history."""
    for array in state.history:
        look_at(array)


def snapshot_maker(ending: str) -> Callable[[Path], list[bytes]]:
    """Return the function that writes a snapshot and returns that of its files which is to be damaged."""

    def make(folder: Path) -> list[bytes]:
        make_snapshot(folder, "BINARYPROTO", "snap")
        return [(folder / f"snap_iter_{ITERATION}{ending}").read_bytes()]

    return make


def read_snapshot(path: Path) -> None:
    """Load the snapshot to which `path` belongs, verify and read it."""
    snapshot = load_snapshot(path.with_name(f"snap_iter_{ITERATION}.solverstate"), require_manifest=True)
    look_at_state(snapshot.read_state())
    look_at_layers(snapshot.read_weights())


HDF5 = ("h5py",)
SNAPSHOT_FORMATS = (
    Format("caffemodel", "net.caffemodel", model_maker("BINARYPROTO"), read_model),
    Format("solverstate", "net.solverstate", state_maker("BINARYPROTO"), read_state),
    Format("caffemodel.h5", "net.caffemodel.h5", model_maker("HDF5"), read_model, needs=HDF5),
    Format("solverstate.h5", "net.solverstate.h5", state_maker("HDF5"), read_state, needs=HDF5),
    *(
        Format(f"snapshot {ending}", f"snap_iter_{ITERATION}{ending}", snapshot_maker(ending), read_snapshot)
        for ending in (".caffemodel", ".solverstate", ".manifest.json")
    ),
)
