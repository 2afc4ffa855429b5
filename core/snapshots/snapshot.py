"""Describe a snapshot that can be resumed from, and verify one against its manifest.

The end of the flow prototxt → graph → net → solver → communicator → snapshot. A snapshot is three files of
one stem: `<stem>.caffemodel` and `<stem>.solverstate`, both as Caffe's, and `<stem>.manifest.json`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dtrain.core.errors import UserError
from dtrain.core.snapshots.caffemodel import LayerWeights
from dtrain.core.snapshots.checksum import find_damage
from dtrain.core.snapshots.formats import format_of
from dtrain.core.snapshots.manifest import Manifest, read_manifest
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE, map_file
from dtrain.core.snapshots.solverstate import SolverState

MANIFEST = ".manifest.json"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that can be resumed from.

    Attributes:
        state_path: its .solverstate.
        model_path: its .caffemodel; None when the .solverstate names none, as Caffe allows.
        manifest: what dtrain keeps beside, verified; None when Caffe wrote the snapshot.
    """

    state_path: Path
    model_path: Path | None
    manifest: Manifest | None

    def read_state(self) -> SolverState:
        """Read the iteration and the history; raises UserError."""
        return format_of(self.state_path).read_state(self.state_path)

    def read_weights(self) -> list[LayerWeights]:
        """Read the layers' weights, none when there is no model; raises UserError."""
        return [] if self.model_path is None else format_of(self.model_path).read_model(self.model_path)


def open_verified(stem: str) -> Snapshot:
    """Return the snapshot of a stem after all its files were compared with their checksums.

    Raises:
        UserError: a file is missing or not as it was written, or the manifest is.
    """
    manifest = read_manifest(stem + MANIFEST)
    paths = {_kind(ending): verify_file(stem, ending, manifest) for ending in manifest.files}
    return Snapshot(paths[SOLVERSTATE], paths[CAFFEMODEL], manifest)


def verify_file(stem: str, ending: str, manifest: Manifest) -> Path:
    """Return the path of one of a snapshot's files, compared with its checksum; raises UserError."""
    path = Path(stem + ending)
    damage = find_damage(map_file(path, _kind(ending)), manifest.files[ending])
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
    return (name.removesuffix(ending), ending) if name.endswith(ending) else None


def _kind(ending: str) -> str:
    return CAFFEMODEL if ending.startswith(CAFFEMODEL) else SOLVERSTATE
