"""The jobs that faults befall: a small net on all that a run has, and what is compared of two such runs.

LMDB, shuffled, cropped and mirrored at random; dropout; tests and snapshots every few iterations.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.snapshots import SnapshotStore, read_caffemodel, read_solverstate
from dtrain.launcher.mpirun import find_mpirun
from tests.conftest import MPIRUN_ENVIRONMENT, ROOT
from tests.core.solver.small_runs import DROPOUT, NUM_CLASSES, RANDOM_DATA, SmallRuns, write_database
from tests.faults.fault import ENVIRONMENT, MAX_ITER, SNAPSHOT_EVERY, TEST_EVERY, Fault
from tests.faults.job import Ended, run_job
from tests.faults.saboteur import HIT_FILE

SABOTEUR = (
    'layer { name: "saboteur" type: "Python" bottom: "data" top: "data" include { phase: TRAIN }'
    ' python_param { module: "tests.faults.saboteur" layer: "Saboteur" } }'
)
SOLVER = (
    f"max_iter: {MAX_ITER} display: 1 average_loss: 3 snapshot: {SNAPSHOT_EVERY} snapshot_after_train: true "
    f"test_iter: 7 test_interval: {TEST_EVERY}"
)
OTHER_NUM_CLASSES = NUM_CLASSES + 1  # of the net that does not belong to the others'


@dataclass(frozen=True)
class Run:
    """A job that has ended. seconds: from the fault, or else from the start, to the end of its last process."""

    ended: Ended
    seconds: float
    was_hit: bool


@dataclass
class Bench:
    """Runs jobs in `folder`: the database, the nets of each job and its snapshots."""

    folder: Path
    _references: dict[int, list[NDArray[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("data", "nets", "elsewhere"):
            (self.folder / name).mkdir()
        # Not beside the nets, where it would be found from any working directory.
        write_database(self.folder / "data" / "lmdb")

    def write(self, name: str, fields: str = "", num_classes: int = NUM_CLASSES) -> None:
        """Write the files of a job, whose solver has further `fields`."""
        SmallRuns(self.folder / "nets", "lmdb").write(
            f"{SOLVER} {fields}",
            name=name,
            middle=DROPOUT,
            shuffle=True,
            transform=RANDOM_DATA,
            batch_size=4,
            num_classes=num_classes,
        )
        net = self.folder / "nets" / f"{name}.prototxt"
        head, conv, tail = net.read_text().partition('layer { name: "conv"')
        net.write_text(f"{head}{SABOTEUR}\n{conv}{tail}")

    def run(
        self,
        name: str,
        num_ranks: int,
        fault: Fault | None = None,
        flags: Sequence[str] = (),
        on: Callable[[Sequence[str]], list[str]] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Run:
        """Run the job called `name`, on which `fault` falls; keep what it printed in NAME.log.

        on: makes of a rank's command that which starts all of them, where that is not this host's mpirun.
        """
        hit = self.folder / f"{name}.hit"
        hit.unlink(missing_ok=True)
        environment = {**os.environ, **MPIRUN_ENVIRONMENT, "PYTHONPATH": str(ROOT), HIT_FILE: str(hit)}
        environment.update(env or {})
        if fault is not None:
            environment[ENVIRONMENT] = fault.to_text()
        began = time.time()
        plain = self._rank_command(name, flags)
        command = on(plain) if on else self._command(name, plain, num_ranks, fault)
        ended = run_job(command, environment, self.folder / "data")
        self.log_path(name).write_text(ended.log)
        was_hit = hit.exists()
        return Run(ended, ended.ended_at - (float(hit.read_text()) if was_hit else began), was_hit)

    def log_path(self, name: str) -> Path:
        """Return where the log of the job's last run is."""
        return self.folder / f"{name}.log"

    def _rank_command(self, name: str, flags: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "dtrain", str(self.folder / "nets" / f"{name}_solver.prototxt"), *flags]

    def _command(self, name: str, plain: list[str], num_ranks: int, fault: Fault | None) -> list[str]:
        """Return mpirun's command line, in which the rank of a fault of the launch is started otherwise."""
        if fault is None or fault.place != "launch":
            return [find_mpirun(), "-n", str(num_ranks), *plain]
        if fault.kind == "net":
            self.write(f"{name}other", num_classes=OTHER_NUM_CLASSES)
        odd = {
            "database": ["--wdir", str(self.folder / "elsewhere"), *plain],
            "net": self._rank_command(f"{name}other", []),
            "world size": ["env", f"OMPI_COMM_WORLD_SIZE={num_ranks + 1}", *plain],
        }[fault.kind]
        groups = [(fault.rank, plain), (1, odd), (num_ranks - fault.rank - 1, plain)]
        command = [find_mpirun()]
        for num, words in groups:
            if num:
                command += [*([":"] if len(command) > 1 else []), "-n", str(num), *words]
        return command

    def store(self, name: str, prefix: Path | None = None) -> SnapshotStore:
        """Return the snapshots of a job; prefix: its snapshot_prefix, where it has one of its own."""
        return SnapshotStore(prefix or self.folder / "nets" / name)

    def final_values(self, name: str, prefix: Path | None = None) -> list[NDArray[Any]]:
        """Return the params and the history that a job has ended with."""
        store = self.store(name, prefix)
        layers = read_caffemodel(store.model_path(MAX_ITER))
        history = read_solverstate(store.state_path(MAX_ITER)).history
        return [*(np.array(blob) for layer in layers for blob in layer.blobs), *map(np.array, history)]

    def reference(self, num_ranks: int) -> list[NDArray[Any]]:
        """Return the values that an undisturbed run on `num_ranks` ranks ends with."""
        if num_ranks not in self._references:
            name = f"undisturbed{num_ranks}"
            self.write(name)
            run = self.run(name, num_ranks)
            assert run.ended.exit_code == 0, run.ended.log
            assert not run.ended.orphans
            self._references[num_ranks] = self.final_values(name)
        return self._references[num_ranks]
