"""The keeper of a solver's snapshots: what goes into one, and how a run takes it up again.

    solver ──> keeper ──> snapshots/ (files)

Rank 0 alone reads and writes; what it reads is broadcast, so that ranks need no common file system.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from dtrain.core.errors import UserError
from dtrain.core.net.weights import copy_weights, layer_records
from dtrain.core.snapshots import (
    BackgroundWriter,
    Manifest,
    Snapshot,
    SnapshotStore,
    format_named,
    load_snapshot,
)
from dtrain.dist.guard import together
from dtrain.proto import caffe_pb2

if TYPE_CHECKING:
    from dtrain.core.solver.solver import Solver

T = TypeVar("T")

log = logging.getLogger(__name__)


def snapshot_prefix(solver: caffe_pb2.SolverParameter, path: str) -> str:
    """Return the prefix of the snapshots of the solver file `path`: snapshot_prefix, or the file's path without
    its ending; for a folder, the file's name in it. Follows caffe's upgrade_proto.cpp.
    """
    stem = os.path.splitext(path)[0]
    prefix = solver.snapshot_prefix or stem
    return os.path.join(prefix, os.path.basename(stem)) if os.path.isdir(prefix) else prefix


class Keeper:
    """Writes and restores the snapshots of one solver. All calls are collective over its communicator."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        param = solver.param
        name = caffe_pb2.SolverParameter.SnapshotFormat.Name(param.snapshot_format)
        self.store = SnapshotStore(snapshot_prefix(param, solver.recipe.path), format_named(name))
        self._writer = BackgroundWriter()

    def probe(self) -> None:
        """Find out before training whether snapshots can be written. Raises UserError."""
        self._on_rank_0(self.store.probe)

    def write(self) -> str:
        """Write a snapshot of now in the background and return the path of its .solverstate.

        What went wrong with the one before is raised here, as UserError.
        """
        solver = self.solver
        path = os.fspath(self.store.state_path(solver.iter))
        if solver.communicator.rank == 0:
            log.info("Snapshotting to binary proto file %s", self.store.model_path(solver.iter))
            log.info("Snapshotting solver state to binary proto file %s", path)
            records = layer_records(solver.net, with_diff=solver.param.snapshot_diff, copy=True)
            history = [array.copy() for array in solver.updater.history]
            manifest = self._manifest()
            self._writer.submit(lambda: self.store.write(solver.net.name, records, history, manifest))
        return path

    def finish(self) -> None:
        """Wait until the snapshot under way is on the disk. Raises UserError if it could not be written."""
        self._writer.finish()

    def newest(self) -> str | None:
        """Return the newest good snapshot's .solverstate, or None; the same on all ranks."""
        found = self._on_rank_0(lambda: self.store.newest())
        text = self._share_text(os.fspath(found.state_path) if found else "")
        return text or None

    def restore(self, path: str) -> None:
        """Take up the run where the snapshot `path` (.solverstate) left it.

        Raises UserError for a file that is damaged, of another kind or of another net; nothing has changed then.
        """
        solver = self.solver
        snapshot = self._on_rank_0(lambda: self._read(path))
        state_text = self._share_text(_state_text(snapshot) if snapshot else "")
        state = json.loads(state_text)
        solver.broadcast_params()
        for array in solver.updater.history:
            solver.communicator.broadcast(array)
        solver.iter = state["iter"]
        manifest = state["manifest"]
        if manifest:
            solver.take_up(manifest)
        log.info("Restored %s: iteration %d%s", path, solver.iter, "" if manifest else ", written by Caffe")

    def _read(self, path: str) -> Snapshot:
        """Read a snapshot into the solver's net and history (rank 0)."""
        snapshot = load_snapshot(path)
        history = self.solver.updater.history
        state = snapshot.read_state()
        shapes, wanted = [a.size for a in state.history], [a.size for a in history]
        if shapes != wanted:
            raise UserError(
                f"{path}: history must hold {len(wanted)} arrays that fit the params of this net, got "
                f"{len(shapes)}{'' if len(shapes) != len(wanted) else ' of other sizes'}; "
                "it is of another net or solver type"
            )
        if snapshot.model_path is not None:
            copy_weights(self.solver.net, snapshot.read_weights(), os.fspath(snapshot.model_path))
        for mine, kept in zip(history, state.history, strict=True):
            mine[...] = kept.reshape(mine.shape)
        return snapshot

    def _manifest(self) -> Manifest:
        solver = self.solver
        layers = solver.net.reading_layers
        positions = {layer.name: layer.position for layer in layers}
        return Manifest(
            iteration=solver.iter,
            world_size=solver.communicator.world_size,
            batch_sizes={layer.name: layer.loader.batch_size for layer in layers},
            positions=positions,
            epoch=solver.epoch,
            seed=solver.seed,
            current_step=solver.current_step,
            losses=tuple(solver.losses.losses),
            pass_index=solver.net.context.random.pass_index,
        )

    def _on_rank_0(self, action: Callable[[], T]) -> T | None:
        """Run `action` on rank 0; its UserError is raised there, and every other rank learns of it."""
        communicator = self.solver.communicator
        return together(communicator, lambda: action() if communicator.rank == 0 else None, (UserError,))

    def _share_text(self, text: str) -> str:
        """Return rank 0's `text` on every rank."""
        return self.solver.communicator.all_gather_bytes(text.encode())[0].decode()


def _state_text(snapshot: Snapshot) -> str:
    """Return what all ranks need of a snapshot beside its arrays."""
    manifest: dict[str, Any] | None = asdict(snapshot.manifest) if snapshot.manifest else None
    return json.dumps({"iter": snapshot.read_state().iter, "manifest": manifest}, allow_nan=True)
