"""Keep a run's snapshots: write one as a whole, and find the newest that is whole.

The end of the flow prototxt → graph → net → solver → communicator → snapshot, on rank 0 alone when writing.
The files are `<prefix>_iter_<N>.caffemodel`, `.ema.caffemodel` where there are averaged weights, `.carried` where
layers carry something from batch to batch, `.solverstate` and `.manifest.json`, committed in this order; in HDF5
Caffe's files end in `.h5`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import Array, Part, num_bytes
from dtrain.core.snapshots.caffemodel import LayerRecord
from dtrain.core.snapshots.carried import CARRIED, LayerState, encode_carried
from dtrain.core.snapshots.commit import Commit, commit_file
from dtrain.core.snapshots.formats import BINARY, SnapshotFormat
from dtrain.core.snapshots.manifest import Manifest, MonitorState, read_manifest
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE
from dtrain.core.snapshots.snapshot import AVERAGED, MANIFEST, Snapshot, open_verified
from dtrain.core.snapshots.solverstate import SolverState

log = logging.getLogger(__name__)
_NAME = re.compile(
    r"(?P<prefix>.*)_iter_(?P<iteration>0|[1-9][0-9]*)\.((ema\.)?caffemodel|carried|solverstate|manifest\.json)(\.h5)?"
)


class SnapshotStore:
    """The snapshots of one snapshot_prefix.

    Arguments:
        prefix: what the files' names begin with, such as "snapshots/lenet"; its folder is made when it is
            missing.
        format: how files are written.
    """

    def __init__(self, prefix: str | os.PathLike[str], format: SnapshotFormat = BINARY) -> None:
        self.prefix = os.fspath(prefix)
        self.format = format
        self._model_ending, self._state_ending = CAFFEMODEL + format.suffix, SOLVERSTATE + format.suffix
        folder, self._name = os.path.split(self.prefix)
        self._folder = Path(folder)

    def model_path(self, iteration: int) -> Path:
        """Return the name of an iteration's .caffemodel."""
        return Path(self._stem(iteration) + self._model_ending)

    def averages_path(self, iteration: int) -> Path:
        """Return the name of an iteration's averaged weights."""
        return Path(self._stem(iteration) + AVERAGED + self._model_ending)

    def state_path(self, iteration: int) -> Path:
        """Return the name of an iteration's .solverstate."""
        return Path(self._stem(iteration) + self._state_ending)

    def probe(self) -> None:
        """Make sure, before training starts, that snapshots can be written; raises UserError."""
        commit = Commit(needed_bytes=0)
        try:
            commit.add(self.model_path(0), [])
        finally:
            commit.discard()

    def check(self, net_name: str, layers: Iterable[LayerRecord], history: Sequence[Array]) -> None:
        """Make sure, before training starts, that the format can hold snapshots of this net and this history.

        Of the arrays only shapes and types count: nothing is read, copied or written.

        Raises:
            UserError: a file would be larger than Caffe can read, the format cannot hold a layer's name, or it
                needs a package that is not installed.
        """
        self._encode(net_name, layers, history, iteration=0, current_step=0)

    def write(
        self,
        net_name: str,
        layers: Iterable[LayerRecord],
        history: Sequence[Array],
        manifest: Manifest,
        averages: Sequence[LayerRecord] = (),
        carried: Sequence[Sequence[LayerState]] = (),
    ) -> Snapshot:
        """Write a snapshot: model, averages and carried if there are any, state, manifest; on an error none of them.

        Arguments:
            net_name: the net's name.
            layers: the net's layers with their blobs, which must not change meanwhile.
            history: the update rule's arrays, which must not change meanwhile.
            manifest: of this moment; its iteration names the files. Its `files` are filled in here.
            averages: the net's layers with averaged weights for blobs, which must not change meanwhile.
            carried: for each rank what its layers carry from batch to batch.
        Returns:
            the snapshot as it lies on the disk.
        Raises:
            UserError: the disk refuses, or the format cannot hold the snapshot (see `check`).
        """
        model_path, state_path = self.model_path(manifest.iteration), self.state_path(manifest.iteration)
        model_parts, state_parts = self._encode(
            net_name, layers, history, manifest.iteration, manifest.current_step
        )
        averages_path = self.averages_path(manifest.iteration) if averages else None
        contents = {self._model_ending: (model_path, model_parts)}
        if averages_path:
            parts = self.format.encode_model(averages_path, net_name, averages)
            contents[AVERAGED + self._model_ending] = (averages_path, parts)
        carried_path = Path(self._stem(manifest.iteration) + CARRIED) if carried else None
        if carried_path:
            contents[CARRIED] = (carried_path, encode_carried(carried))
        contents[self._state_ending] = (state_path, state_parts)
        with Commit(sum(num_bytes(parts) for _, parts in contents.values())) as commit:
            commit.sweep(self._folder, f"{self._name}_iter_")
            files = {ending: commit.add(path, parts) for ending, (path, parts) in contents.items()}
            manifest = replace(manifest, files=files)
            commit.add(self._manifest_path(manifest.iteration), [manifest.encode()])
        return Snapshot(state_path, model_path, manifest, averages_path, carried_path)

    def mark_best(self, iteration: int, monitor: MonitorState) -> None:
        """Enter into an iteration's manifest that its weights have the best score so far.

        Raises:
            UserError: the manifest cannot be read or written; the old one is intact.
        """
        path = self._manifest_path(iteration)
        manifest = replace(read_manifest(path), monitor=monitor, is_best=True)
        commit_file(path, [manifest.encode()])

    def manifest(self, iteration: int) -> Manifest | None:
        """Return an iteration's manifest, None where there is none or no good one; looks at no other file."""
        try:
            return read_manifest(self._manifest_path(iteration))
        except UserError:
            return None

    def remove(self, iteration: int) -> None:
        """Remove an iteration's snapshot: the files that its manifest names, and then the manifest; no others.

        Raises:
            UserError: the manifest is not good, or the disk refuses.
        """
        manifest = read_manifest(self._manifest_path(iteration))
        for ending in (*manifest.files, MANIFEST):
            path = Path(self._stem(iteration) + ending)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot remove {path}, which is no longer kept: {error.strerror}") from None

    def _encode(
        self,
        net_name: str,
        layers: Iterable[LayerRecord],
        history: Sequence[Array],
        iteration: int,
        current_step: int,
    ) -> tuple[list[Part], list[Part]]:
        """Return the bytes of the model's and of the state's file; reads no array."""
        model_path, state_path = self.model_path(iteration), self.state_path(iteration)
        state = SolverState(iteration, str(model_path), current_step, tuple(history))
        return (
            self.format.encode_model(model_path, net_name, layers),
            self.format.encode_state(state_path, state),
        )

    def iterations(self) -> list[int]:
        """List the iterations of which any file is there, the newest first."""
        if not self._folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        found = {int(match["iteration"]) for match in matches if match and match["prefix"] == self._name}
        return sorted(found, reverse=True)

    def find(self, iteration: int) -> Snapshot:
        """Return an iteration's snapshot, its files verified; raises UserError when it is not whole."""
        stem = self._stem(iteration)
        if not os.path.exists(stem + MANIFEST):
            raise UserError(
                f"{stem}: snapshot must have a manifest, got none; it was cut short, or Caffe wrote it "
                "(then give it with --snapshot)"
            )
        return open_verified(stem)

    def newest(self, report: Callable[[str], None] = log.warning) -> Snapshot | None:
        """Return the newest snapshot that is whole, or None.

        Arguments:
            report: gets a line for each newer snapshot that is not whole, with the reason.
        """
        for iteration in self.iterations():
            try:
                return self.find(iteration)
            except UserError as error:
                report(f"Skipping the snapshot of iteration {iteration}: {error}")
        return None

    def _manifest_path(self, iteration: int) -> Path:
        return Path(self._stem(iteration) + MANIFEST)

    def _stem(self, iteration: int) -> str:
        return f"{self.prefix}_iter_{iteration}"
