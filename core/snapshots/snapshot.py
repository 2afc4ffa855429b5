"""Describe a snapshot that can be resumed from, and verify one against its manifest.

The end of the flow prototxt → graph → net → solver → communicator → snapshot. A snapshot is three files of
one stem: `<stem>.caffemodel` and `<stem>.solverstate`, both as Caffe's (with .h5 behind in HDF5), and
`<stem>.manifest.json`. Averaged weights, where a run keeps them, are a fourth: `<stem>.ema.caffemodel`; what layers
carry from batch to batch is a fifth: `<stem>.carried`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dtrain.core.errors import UserError
from dtrain.core.snapshots.caffemodel import LayerWeights
from dtrain.core.snapshots.carried import CARRIED, LayerState, read_carried
from dtrain.core.snapshots.checksum import find_damage
from dtrain.core.snapshots.formats import format_inside, format_of
from dtrain.core.snapshots.manifest import Manifest, read_manifest
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE, map_file
from dtrain.core.snapshots.solverstate import SolverState

MANIFEST = ".manifest.json"
AVERAGED = ".ema"
"""Stands before .caffemodel in the name of the averaged weights (an exponential moving average)."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that can be resumed from.

    Attributes:
        state_path: its .solverstate.
        model_path: its .caffemodel; None when the .solverstate names none, as Caffe allows.
        manifest: what dtrain keeps beside, verified; None when Caffe wrote the snapshot.
        averages_path: its .ema.caffemodel; None when the run keeps no averages.
        carried_path: its .carried; None when no layer carries anything from batch to batch.
    """

    state_path: Path
    model_path: Path | None
    manifest: Manifest | None
    averages_path: Path | None = None
    carried_path: Path | None = None

    def read_state(self) -> SolverState:
        """Read the iteration and the history; raises UserError."""
        return format_inside(self.state_path).read_state(self.state_path)

    def read_weights(self) -> list[LayerWeights]:
        """Read the layers' weights, none when there is no model; raises UserError."""
        return [] if self.model_path is None else format_inside(self.model_path).read_model(self.model_path)

    def read_averages(self) -> list[LayerWeights]:
        """Read the layers' averaged weights, none when there are none; raises UserError."""
        path = self.averages_path
        return [] if path is None else format_inside(path).read_model(path)

    def read_carried(self) -> list[list[LayerState]]:
        """Read what layers carried, for each rank; no rank when there is nothing. Raises UserError."""
        return [] if self.carried_path is None else read_carried(self.carried_path)


def open_verified(stem: str) -> Snapshot:
    """Return the snapshot of a stem after all its files were compared with their checksums.

    Raises:
        UserError: a file is missing or not as it was written, or the manifest is.
    """
    manifest = read_manifest(stem + MANIFEST)
    paths = {_kind(ending): verify_file(stem, ending, manifest) for ending in manifest.files}
    averages_path, carried_path = paths.get(AVERAGED + CAFFEMODEL), paths.get(CARRIED)
    return Snapshot(paths[SOLVERSTATE], paths[CAFFEMODEL], manifest, averages_path, carried_path)


def verify_file(stem: str, ending: str, manifest: Manifest) -> Path:
    """Return the path of one of a snapshot's files, compared with its checksum; raises UserError."""
    path = Path(stem + ending)
    damage = find_damage(map_file(path, _kind(ending).removeprefix(AVERAGED)), manifest.files[ending])
    if damage is not None:
        raise UserError(
            f"{path}: file must be as its manifest says, got another: {damage}; use another snapshot, "
            f"or remove {stem}{MANIFEST} if the file was replaced on purpose"
        )
    return path


def split_stem(path: str | os.PathLike[str], kind: str) -> tuple[str, str] | None:
    """Split a file's path into stem and ending, or return None when the name is not of this kind.

    Arguments:
        path: such as "lenet_iter_100.solverstate".
        kind: CAFFEMODEL or SOLVERSTATE.
    """
    ending = kind + format_of(path).suffix
    name = os.fspath(path)
    if not name.endswith(ending):
        return None
    stem = name.removesuffix(ending)
    if kind == CAFFEMODEL and stem.endswith(AVERAGED):
        return stem.removesuffix(AVERAGED), AVERAGED + ending
    return stem, ending


def _kind(ending: str) -> str:
    """Return what a file of a snapshot is, by its ending, which in HDF5 goes on with .h5."""
    kinds = (AVERAGED + CAFFEMODEL, CAFFEMODEL, SOLVERSTATE, CARRIED)
    return next(kind for kind in kinds if ending.startswith(kind))
