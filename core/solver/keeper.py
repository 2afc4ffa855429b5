"""The keeper of a run's snapshots: rank 0 writes and reads them, the other ranks learn what they hold.

    solver ──> keeper ──> snapshots/ (files)

What rank 0 reads is sent to the others, so that ranks need no common file system for snapshots.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dtrain.core.arrays import assign, to_host
from dtrain.core.errors import UserError
from dtrain.core.net.carried_state import give_states, take_states
from dtrain.core.net.net import Net
from dtrain.core.net.weights import copy_weights, layer_records
from dtrain.core.snapshots import (
    BackgroundWriter,
    LayerRecord,
    LayerState,
    Manifest,
    MonitorState,
    SnapshotStore,
    decode_carried,
    decode_manifest,
    encode_carried,
    load_snapshot,
)
from dtrain.core.solver.recipe import Recipe, snapshot_format
from dtrain.core.solver.retention import Retention
from dtrain.core.solver.weight_average import WeightAverage
from dtrain.dist.communicator import Communicator
from dtrain.dist.guard import on_rank_0, together
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
    current_step: int
    manifest: Manifest | None


def make_keeper(
    recipe: Recipe, net: Net, history: Sequence[Array], average: WeightAverage, communicator: Communicator
) -> Keeper:
    """Return the keeper of the snapshots that `recipe` asks for."""
    solver = recipe.solver
    store = SnapshotStore(snapshot_prefix(solver, recipe.path), snapshot_format(solver))
    retention = Retention(solver.dtrain_param.keep_best, solver.dtrain_param.keep_last)
    return Keeper(store, net, history, average, retention, communicator)


class Keeper:
    """Writes and reads the snapshots of `net` in `store`. All calls are collective but poll and finish.

    history: the update rule's arrays. average: the weights' averages. retention: which snapshots stay.
    """

    def __init__(
        self,
        store: SnapshotStore,
        net: Net,
        history: Sequence[Array],
        average: WeightAverage,
        retention: Retention,
        communicator: Communicator,
    ) -> None:
        self.store = store
        self._net = net
        self._history = history
        self._average = average
        self._retention = retention
        self._communicator = communicator
        self._writer = BackgroundWriter()
        self._newest_own: int | None = None  # the iteration of the snapshot that this run wrote, or is from

    def probe(self, with_diff: bool = False) -> None:
        """Find out before training whether snapshots can be written. Raises UserError."""

        def check() -> None:
            # Only shapes count; memory that nobody touches is not taken.
            shapes = [np.empty(array.shape, np.float32) for array in self._history]
            self.store.check(self._net.name, layer_records(self._net, with_diff), shapes)
            self.store.probe()

        self._on_rank_0(check)

    def write(self, manifest: Manifest, with_diff: bool = False) -> str:
        """Write a snapshot of now in the background and return the path of its .solverstate.

        What went wrong with the one before is raised here on rank 0, as UserError; on any rank, that a Python layer
        can't give its state.
        """
        iteration = manifest.iteration
        path = os.fspath(self.store.state_path(iteration))
        carried = self._gather_carried()
        if self._communicator.rank == 0:
            words = self.store.format.words
            log.info("Snapshotting to %s %s", words, self.store.model_path(iteration))
            log.info("Snapshotting solver state to %s %s", words, path)
            records = layer_records(self._net, with_diff, copy=True)
            averages = self._averaged_records()
            history = [to_host(array) for array in self._history]
            self._submit(
                lambda: self.store.write(self._net.name, records, history, manifest, averages, carried),
                iteration,
                manifest.monitor,
            )
        self._newest_own = iteration
        return path

    def mark_best(self, iteration: int, monitor: MonitorState) -> bool:
        """Mark this run's snapshot of `iteration` as the best; return False if it has none of that iteration."""
        if self._newest_own != iteration:
            return False
        if self._communicator.rank == 0:
            self._submit(lambda: self.store.mark_best(iteration, monitor), iteration, monitor)
        return True

    def _submit(self, write: Callable[[], object], iteration: int, monitor: MonitorState) -> None:
        """Let the writer's thread `write`, and then remove what is not kept any more."""

        def act() -> None:
            write()
            self._retention.apply(self.store, iteration, monitor.best_iterations)

        self._writer.submit(act)

    def _averaged_records(self) -> list[LayerRecord]:
        if not self._average.num_updates:
            return []
        with self._average.shown():
            return layer_records(self._net, copy=True)

    def _gather_carried(self) -> list[list[LayerState]]:
        """Return what the layers of each rank carry from batch to batch; no rank if they carry nothing."""
        states = take_states(self._net)
        if not states:
            return []
        gathered = self._communicator.all_gather_bytes(b"".join(map(bytes, encode_carried([states]))))
        return [decode_carried(content)[0] for content in gathered]

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

    def read(self, path: str, solver_type: str) -> Restored:
        """Read the snapshot `path` (.solverstate): into the params of the net on rank 0, which the caller
        broadcasts, and into the history, the averages and the layers that carry a state on every rank.

        Raises UserError for a file that is damaged, of another kind, of another net or of another solver type than
        solver_type; nothing has changed then. Also for a state that a layer doesn't take, when all else is read.
        """
        read = self._on_rank_0(lambda: self._read(path, solver_type))
        restored, carried = read if read else (None, [])
        restored = _from_text(self._share_text(_to_text(restored) if restored else ""))
        for array in self._history:
            self._communicator.broadcast(array)
        self._share_averages(path, restored.manifest)
        self._share_carried(path, carried)
        is_own = restored.manifest and Path(path) == self.store.state_path(restored.iteration)
        self._newest_own = restored.iteration if is_own else None
        whose = "" if restored.manifest else ", written by Caffe"
        log.info("Restored %s: iteration %d%s", path, restored.iteration, whose)
        return restored

    def _read(self, path: str, solver_type: str) -> tuple[Restored, list[list[LayerState]]]:
        """Read on rank 0 what `read` says; return what layers carried too."""
        self.finish()  # the snapshot may be the one under way
        snapshot = load_snapshot(path)
        _check_type(path, snapshot.manifest, solver_type)
        state = snapshot.read_state()
        if [array.size for array in state.history] != [array.size for array in self._history]:
            sizes = " of other sizes" if len(state.history) == len(self._history) else ""
            raise UserError(
                f"{path}: history must hold {len(self._history)} arrays that fit the params of this net, got "
                f"{len(state.history)}{sizes}; it is of another net or solver type"
            )
        carried = snapshot.read_carried()
        # Checked before anything is written: the first copy raises where the weights are of another net.
        if self._average.is_on and snapshot.averages_path:
            self._average.read(self._net, snapshot.read_averages(), os.fspath(snapshot.averages_path))
        if snapshot.model_path is not None:
            copy_weights(self._net, snapshot.read_weights(), os.fspath(snapshot.model_path))
        for mine, kept in zip(self._history, state.history, strict=True):
            assign(mine, kept)
        return Restored(state.iter, state.current_step, snapshot.manifest), carried

    def _share_averages(self, path: str, manifest: Manifest | None) -> None:
        num_averaged = manifest.num_averaged if manifest else 0
        if self._average.is_on and num_averaged:
            self._average.broadcast(num_averaged, self._communicator)
        elif self._average.is_on:
            self._average.forget()
            log.info("%s has no averaged weights: averages begin with the next update", path)
        elif num_averaged:
            log.info("The averaged weights of %s are left, since the solver has no ema_decay", path)

    def _share_carried(self, path: str, carried: Sequence[Sequence[LayerState]]) -> None:
        """Give the layers of each rank what they carried on it, which rank 0 has read as `carried`."""
        communicator = self._communicator
        content = b"".join(map(bytes, encode_carried(carried)))
        ranks = decode_carried(communicator.all_gather_bytes(content)[0])
        fits = len(ranks) == communicator.world_size
        states = ranks[communicator.rank] if fits else []
        anew = together(communicator, lambda: give_states(self._net, states), (UserError,))
        why = "does not have it"
        if ranks and not fits:
            why = f"is of {len(ranks)} ranks, not {communicator.world_size}"
        for title in anew:
            log.warning("%s: what it carries from batch to batch begins anew: %s %s", title, path, why)

    def _on_rank_0(self, action: Callable[[], T]) -> T | None:
        """Run `action` on rank 0; its UserError is raised there, and every other rank learns of it."""
        return on_rank_0(self._communicator, action, (UserError,))

    def _share_text(self, text: str) -> str:
        """Return rank 0's `text` on every rank."""
        return self._communicator.all_gather_bytes(text.encode())[0].decode()


def _check_type(path: str, manifest: Manifest | None, solver_type: str) -> None:
    """Raise UserError where the history would be taken for what it is not; Caffe's files don't say what theirs is."""
    kept = manifest.solver_type if manifest else ""
    if kept and kept != solver_type:
        raise UserError(
            f'{path}: the solver\'s type must be "{kept}", whose history this is, got "{solver_type}"; '
            "to train on by another type, start from the weights (--weights)"
        )


def _to_text(restored: Restored) -> str:
    manifest = restored.manifest.encode().decode() if restored.manifest else None
    return json.dumps([restored.iteration, restored.current_step, manifest])


def _from_text(text: str) -> Restored:
    iteration, current_step, manifest = json.loads(text)
    decoded = None if manifest is None else decode_manifest(manifest.encode(), "the snapshot")
    return Restored(iteration, current_step, decoded)
