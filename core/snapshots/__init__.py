"""Snapshots: what is kept of training, so that it can go on and so that others can use its weights.

The last stage of the flow prototxt → graph → net → solver → communicator → snapshot. Bottom to top: `wire`
and `blob_proto` (bytes), `message_file`, `caffemodel` and `solverstate` (Caffe's binary files), `hdf5_layout`,
`hdf5_file`, `hdf5_model` and `hdf5_state` (the same in HDF5), `formats` (which there are), `carried` (what layers
carry from batch to batch), `checksum`, `commit`
and `manifest` (whole or not at all), `snapshot`, `store` and `loading` (finding them again), `background`
(writing while training goes on).
"""

from __future__ import annotations

from dtrain.core.snapshots.background import BackgroundWriter as BackgroundWriter
from dtrain.core.snapshots.caffemodel import LayerRecord as LayerRecord
from dtrain.core.snapshots.caffemodel import LayerWeights as LayerWeights
from dtrain.core.snapshots.caffemodel import read_caffemodel as read_caffemodel
from dtrain.core.snapshots.caffemodel import write_caffemodel as write_caffemodel
from dtrain.core.snapshots.carried import LayerState as LayerState
from dtrain.core.snapshots.carried import decode_carried as decode_carried
from dtrain.core.snapshots.carried import encode_carried as encode_carried
from dtrain.core.snapshots.formats import format_named as format_named
from dtrain.core.snapshots.hdf5_model import read_hdf5_model as read_hdf5_model
from dtrain.core.snapshots.hdf5_model import write_hdf5_model as write_hdf5_model
from dtrain.core.snapshots.loading import load_snapshot as load_snapshot
from dtrain.core.snapshots.loading import load_weights as load_weights
from dtrain.core.snapshots.manifest import LossScaleState as LossScaleState
from dtrain.core.snapshots.manifest import Manifest as Manifest
from dtrain.core.snapshots.manifest import MonitorState as MonitorState
from dtrain.core.snapshots.manifest import decode_manifest as decode_manifest
from dtrain.core.snapshots.snapshot import Snapshot as Snapshot
from dtrain.core.snapshots.solverstate import SolverState as SolverState
from dtrain.core.snapshots.solverstate import read_solverstate as read_solverstate
from dtrain.core.snapshots.solverstate import write_solverstate as write_solverstate
from dtrain.core.snapshots.store import SnapshotStore as SnapshotStore
