"""Which snapshots of a run are removed again: what keep_best and keep_last leave.

Asked by the keeper after each snapshot that has been committed whole; works on rank 0, in the background.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.core.errors import UserError
from dtrain.core.snapshots import Manifest, SnapshotStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """Keeps the last keep_best of the best snapshots and the last keep_last of the others; 0: all of these."""

    keep_best: int
    keep_last: int

    def apply(self, store: SnapshotStore, current: int, best_iterations: Sequence[int]) -> None:
        """Remove from `store` what is not kept, now that the snapshot of iteration `current` is whole.

        best_iterations: where this run's scores were the best so far. Only whole snapshots that dtrain wrote are
        looked at, up to `current`: later ones are of another run. What can't be removed is logged and stays.
        """
        if not (self.keep_best or self.keep_last):
            return
        manifests: dict[int, Manifest] = {}
        for iteration in store.iterations():
            manifest = store.manifest(iteration) if iteration <= current else None
            if manifest is not None:
                manifests[iteration] = manifest
        for iteration in self.expired(manifests, best_iterations):
            try:
                store.remove(iteration)
                log.info("Removed the snapshot of iteration %d", iteration)
            except UserError as error:
                log.warning("%s", error)

    def expired(self, manifests: dict[int, Manifest], best_iterations: Sequence[int]) -> list[int]:
        """Return the iterations whose snapshots are not kept.

        A snapshot that was the best so far and is outdone is removed if it was written for that alone, and counts
        among the others if it was due anyway. Those that were the best in another run, or before keep_best was
        taken out of the solver, stay.
        """
        best = {iteration for iteration, manifest in manifests.items() if manifest.is_best}
        own = [iteration for iteration in best_iterations if iteration in best]
        outdone = set(own[: -self.keep_best]) if self.keep_best else set()
        removed = {iteration for iteration in outdone if not manifests[iteration].is_due}
        others = sorted(manifests.keys() - best | outdone - removed)
        if self.keep_last:
            removed.update(others[: -self.keep_last])
        return sorted(removed)
