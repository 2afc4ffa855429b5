"""The keeper of a run's snapshots: rank 0 writes and reads them, the other ranks learn what they hold.

    solver ──> keeper ──> snapshots/ (files)

What rank 0 reads is sent to the others, so that ranks need no common file system for snapshots.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.net.weights import copy_weights, layer_records
from dtrain.core.snapshots import BackgroundWriter, Manifest, SnapshotStore, load_snapshot
from dtrain.dist.communicator import Communicator
from dtrain.dist.guard import together
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

Array = NDArray[Any]
T = TypeVar("T")


def snapshot_prefix(solver: caffe_pb2.SolverParameter, path: str) -> str:
    """Return the prefix of the snapshots of the solver file `path`: snapshot_prefix, or the file's path without
    its ending; for a folder, the file's name in it. Follows caffe's upgrade_proto.cpp.
    """
    stem = os.path.splitext(path)[0]
    prefix = solver.snapshot_prefix or stem
    return os.path.join(prefix, os.path.basename(stem)) if os.path.isdir(prefix) else prefix


@dataclass(frozen=True)
class Restored:
    """What a snapshot said beside the arrays. manifest: None where Caffe wrote it."""

    iteration: int
    manifest: Manifest | None


class Keeper:
    """Writes and reads the snapshots in `store`. All calls are collective but poll and finish."""

    def __init__(self, store: SnapshotStore, communicator: Communicator) -> None:
        self.store = store
        self._communicator = communicator
        self._writer = BackgroundWriter()

    def probe(self) -> None:
        """Find out before training whether snapshots can be written. Raises UserError."""
        self._on_rank_0(self.store.probe)

    def write(self, net: Net, history: Sequence[Array], manifest: Manifest, with_diff: bool = False) -> str:
        """Write a snapshot of now in the background and return the path of its .solverstate.

        What went wrong with the one before is raised here on rank 0, as UserError.
        """
        path = os.fspath(self.store.state_path(manifest.iteration))
        if self._communicator.rank == 0:
            log.info("Snapshotting to binary proto file %s", self.store.model_path(manifest.iteration))
            log.info("Snapshotting solver state to binary proto file %s", path)
            records = layer_records(net, with_diff, copy=True)
            copies = [array.copy() for array in history]
            self._writer.submit(lambda: self.store.write(net.name, records, copies, manifest))
        return path

    def poll(self) -> None:
        """Raise UserError if the snapshot under way has failed by now. Not collective; waits for nothing."""
        self._writer.poll()

    def finish(self) -> None:
        """Wait until the snapshot under way is on the disk. Raises UserError if it could not be written."""
        self._writer.finish()

    def newest(self) -> str | None:
        """Return the newest good snapshot's .solverstate, or None; the same on all ranks."""
        found = self._on_rank_0(self.store.newest)
        return self._share_text(os.fspath(found.state_path) if found else "") or None

    def read(self, path: str, net: Net, history: Sequence[Array]) -> Restored:
        """Read the snapshot `path` (.solverstate): into the params of `net` on rank 0, which the caller
        broadcasts, and into `history` on every rank.

        Raises UserError for a file that is damaged, of another kind or of another net; nothing has changed then.
        """
        restored = self._on_rank_0(lambda: _read(path, net, history))
        restored = _from_text(self._share_text(_to_text(restored) if restored else ""))
        for array in history:
            self._communicator.broadcast(array)
        whose = "" if restored.manifest else ", written by Caffe"
        log.info("Restored %s: iteration %d%s", path, restored.iteration, whose)
        return restored

    def _on_rank_0(self, action: Callable[[], T]) -> T | None:
        """Run `action` on rank 0; its UserError is raised there, and every other rank learns of it."""
        communicator = self._communicator
        return together(communicator, lambda: action() if communicator.rank == 0 else None, (UserError,))

    def _share_text(self, text: str) -> str:
        """Return rank 0's `text` on every rank."""
        return self._communicator.all_gather_bytes(text.encode())[0].decode()


def _read(path: str, net: Net, history: Sequence[Array]) -> Restored:
    snapshot = load_snapshot(path)
    state = snapshot.read_state()
    if [array.size for array in state.history] != [array.size for array in history]:
        sizes = " of other sizes" if len(state.history) == len(history) else ""
        raise UserError(
            f"{path}: history must hold {len(history)} arrays that fit the params of this net, got "
            f"{len(state.history)}{sizes}; it is of another net or solver type"
        )
    # Checked before anything is written: this first copy raises where the weights are of another net.
    if snapshot.model_path is not None:
        copy_weights(net, snapshot.read_weights(), os.fspath(snapshot.model_path))
    for mine, kept in zip(history, state.history, strict=True):
        mine[...] = kept.reshape(mine.shape)
    return Restored(state.iter, snapshot.manifest)


def _to_text(restored: Restored) -> str:
    manifest = asdict(replace(restored.manifest, files={})) if restored.manifest else None
    return json.dumps({"iteration": restored.iteration, "manifest": manifest})


def _from_text(text: str) -> Restored:
    content = json.loads(text)
    manifest = content["manifest"]
    if manifest is not None:
        manifest = Manifest(**(manifest | {"losses": tuple(manifest["losses"])}))
    return Restored(content["iteration"], manifest)
