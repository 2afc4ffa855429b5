"""Keep a run's snapshots: write one as a whole, and find the newest that is whole.

The end of the flow prototxt → graph → net → solver → communicator → snapshot, on rank 0 alone when writing.
The files are `<prefix>_iter_<N>.caffemodel`, `.solverstate` and `.manifest.json`, committed in this order.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import Array, num_bytes
from dtrain.core.snapshots.caffemodel import LayerRecord
from dtrain.core.snapshots.commit import Commit
from dtrain.core.snapshots.formats import BINARY, SnapshotFormat
from dtrain.core.snapshots.manifest import Manifest
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE
from dtrain.core.snapshots.snapshot import MANIFEST, Snapshot, open_verified
from dtrain.core.snapshots.solverstate import SolverState

log = logging.getLogger(__name__)
_NAME = re.compile(
    r"(?P<prefix>.*)_iter_(?P<iteration>0|[1-9][0-9]*)\.(caffemodel|solverstate|manifest\.json)(\.h5)?"
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

    def write(
        self, net_name: str, layers: Iterable[LayerRecord], history: Sequence[Array], manifest: Manifest
    ) -> Snapshot:
        """Write a snapshot: model, state, manifest; on an error none of them.

        Arguments:
            net_name: the net's name.
            layers: the net's layers with their blobs, which must not change meanwhile.
            history: the update rule's arrays, which must not change meanwhile.
            manifest: of this moment; its iteration names the files. Its `files` are filled in here.
        Returns:
            the snapshot as it lies on the disk.
        Raises:
            UserError: the disk refuses, or a file would be larger than Caffe can read.
        """
        model_path, state_path = self.model_path(manifest.iteration), self.state_path(manifest.iteration)
        state = SolverState(manifest.iteration, str(model_path), manifest.current_step, tuple(history))
        model_parts = self.format.encode_model(model_path, net_name, layers)
        state_parts = self.format.encode_state(state_path, state)
        with Commit(num_bytes(model_parts) + num_bytes(state_parts)) as commit:
            commit.sweep(self._folder, f"{self._name}_iter_")
            files = {
                self._model_ending: commit.add(model_path, model_parts),
                self._state_ending: commit.add(state_path, state_parts),
            }
            manifest = replace(manifest, files=files)
            commit.add(Path(self._stem(manifest.iteration) + MANIFEST), [manifest.encode()])
        return Snapshot(state_path, model_path, manifest)

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

    def _stem(self, iteration: int) -> str:
        return f"{self.prefix}_iter_{iteration}"
