"""Load the snapshot or the weights that a user names, dtrain's own or Caffe's.

What `--snapshot` and `--weights` do: the snapshot stage of the flow prototxt → graph → net → solver →
communicator → snapshot, entered from its end. dtrain's own files are verified first; `store` finds the
newest by itself.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from dtrain.core.errors import UserError
from dtrain.core.snapshots.caffemodel import LayerWeights
from dtrain.core.snapshots.formats import format_inside
from dtrain.core.snapshots.manifest import read_manifest
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE
from dtrain.core.snapshots.snapshot import MANIFEST, Snapshot, open_verified, split_stem, verify_file
from dtrain.core.snapshots.store import SnapshotStore

log = logging.getLogger(__name__)


def load_snapshot(path: str | os.PathLike[str], require_manifest: bool = False) -> Snapshot:
    """Return the snapshot of a .solverstate.

    One with a manifest beside it is verified, and its .caffemodel is the one beside it. One without was
    written by Caffe: the data then start anew, which is logged, and its .caffemodel is where `learned_net`
    says, or beside it.

    Arguments:
        path: the .solverstate.
        require_manifest: refuse one without a manifest.
    Raises:
        UserError: a file is missing, damaged or of another kind; the newest whole snapshot of the same
            prefix, if there is one, is named.
    """
    split = split_stem(path, SOLVERSTATE)
    try:
        if split is not None and os.path.exists(split[0] + MANIFEST):
            return open_verified(split[0])
        if require_manifest:
            raise UserError(
                f"{path}: snapshot must have a manifest, got none; it was cut short, or Caffe wrote it"
            )
        return _open_caffes(Path(path))
    except UserError as error:
        raise UserError(f"{error}{_alternative(path)}") from None


def load_weights(path: str | os.PathLike[str]) -> list[LayerWeights]:
    """Read a .caffemodel, binary or HDF5 by its content; verified when a manifest of dtrain's lies beside it.

    Raises:
        UserError: the file is missing, damaged or of another kind.
    """
    split = split_stem(path, CAFFEMODEL)
    if split is not None and os.path.exists(split[0] + MANIFEST):
        manifest = read_manifest(split[0] + MANIFEST)
        if split[1] in manifest.files:
            verify_file(*split, manifest)
    return format_inside(path).read_model(path)


def _open_caffes(path: Path) -> Snapshot:
    learned_net = format_inside(path).read_state(path).learned_net
    log.info(
        "%s has no manifest: the data go on as if every iteration had read its batch, seed and smoothed loss "
        "start anew",
        path,
    )
    return Snapshot(path, _find_learned_net(path, learned_net), None)


def _find_learned_net(path: Path, learned_net: str) -> Path | None:
    """Return where a .solverstate's model is: at its recorded path, or beside it when both were moved."""
    if not learned_net:
        return None
    places = (Path(learned_net), path.parent / Path(learned_net).name)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"{path}: learned_net must exist, got {learned_net}; put {places[1].name} beside it")
    return found


def _alternative(path: str | os.PathLike[str]) -> str:
    """Name the newest whole snapshot of the same prefix, as the end of an error's sentence."""
    match = re.fullmatch(r"(.*)_iter_[0-9]+\..*", os.fspath(path), re.DOTALL)
    newest = SnapshotStore(match[1]).newest(report=log.debug) if match else None
    return f"; the newest whole snapshot is {newest.state_path}" if newest else ""
