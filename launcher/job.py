"""A command that all ranks run together: its communicator, its log and its end.

Stands around the flow prototxt → graph → net → solver → communicator → snapshot: within `open_job` no rank
can fail without the job ending and saying why.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from dtrain.core.errors import UserError
from dtrain.data.errors import DataError
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import BUILT_FOR_GPUS, create_communicator, join_gpus
from dtrain.dist.ending import failure_line
from dtrain.dist.errors import EXIT_BUG, AgreedFailure, LaunchError, exit_code_of
from dtrain.dist.failure import end_job_on_failure, place_of
from dtrain.dist.guard import merge_texts, together
from dtrain.dist.launch_environment import launched_rank
from dtrain.dist.supervisor import watched
from dtrain.dist.topology import topology_from_hosts
from dtrain.launcher.console import Console
from dtrain.launcher.gpus import GpuChoice, GpuRequest, take_gpu
from dtrain.launcher.log import install_log
from dtrain.launcher.terminal import find_terminal

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class Job:
    """What a collective command works with.

    activity: what this rank is doing, for the line if it fails. communicator_name: what the user chose, or None.
    device: the GPU that this rank computes on; None: the CPU computes.
    """

    communicator: Communicator
    console: Console
    activity: Activity
    communicator_name: str | None = None
    device: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.communicator.rank == 0

    @property
    def on_gpu(self) -> bool:
        """Whether this rank computes on a GPU; take_gpu decides."""
        return self.device is not None

    def together(self, action: Callable[[], T]) -> T:
        """Run `action`, which calls nothing collective, on every rank; users' mistakes on any end it on all.

        Collective. Raises UserError or DataError on a job of one rank, AgreedFailure on one of several.
        """
        return together(self.communicator, action, (UserError, DataError))

    def warn(self, notes: Sequence[str]) -> None:
        """Log the warnings that the ranks have, on rank 0: each once, with the ranks that have it unless all do.
        Collective.
        """
        topology = self.communicator.topology
        texts = [text.decode() for text in self.communicator.all_gather_bytes("\n".join(notes).encode())]
        if self.is_first:
            for line in merge_texts(topology, {rank: text for rank, text in enumerate(texts) if text}):
                log.warning(line)

    def take_gpu(self, request: GpuRequest) -> None:
        """Choose what the ranks compute on; with GPUs, let their gradients travel by NCCL if that can be. Collective.

        Raises as `together` does, and LaunchError on a job of one rank where the user chose NCCL and that can't be.
        """
        choice = self.together(lambda: take_gpu(request, self.communicator.topology))
        self.device = choice.device
        log_note(choice)
        try:
            self.communicator = join_gpus(self.communicator, self.device, self.communicator_name)
        except LaunchError as error:  # on all ranks
            if self.communicator.world_size == 1:
                raise
            raise AgreedFailure(str(error), exit_code=error.exit_code) from error


def take_gpu_alone(request: GpuRequest) -> bool:
    """Take a GPU for this process alone, if that is what it is to compute on; return whether.

    Raises UserError as choose_gpu does.
    """
    choice = take_gpu(request, topology_from_hosts([socket.gethostname()], 0))
    log_note(choice)
    return choice.device is not None


def log_note(choice: GpuChoice) -> None:
    """Log what is to be said of a choice, if anything."""
    if choice.note:
        log.info(choice.note)


def open_console(environment: Mapping[str, str]) -> Console:
    """Return the console on this rank's stderr, with the log going to it; rank 0's may have a status line."""
    rank = launched_rank(environment) or 0
    console = Console(sys.stderr, find_terminal(environment) if rank == 0 else None)
    install_log(console, rank, socket.gethostname())
    return console


@contextmanager
def open_job(communicator_name: str | None, timeout_s: float | None = None) -> Iterator[Job]:
    """Start a job of all ranks for a with block. Collective.

    Arguments:
        communicator_name: what the user chose, or None.
        timeout_s: how long nothing may change on a rank, 0 for ever; None lets dist/watchdog.py decide.

    Raises:
        LaunchError: there is no such communicator, or mpirun belongs to another MPI.
    """
    console = open_console(os.environ)
    watcher = watched()
    if watcher and timeout_s is not None:
        watcher.mirror.write_timeout(timeout_s)
    # NCCL's stands upon another one, and comes when each rank has its GPU.
    host_name = None if communicator_name in BUILT_FOR_GPUS else communicator_name
    communicator = create_communicator(host_name, os.environ)
    communicator.activity.show_in(watcher.mirror if watcher else None)
    job = Job(communicator, console, communicator.activity, communicator_name)
    try:
        with end_job_on_failure(communicator, job.activity, console.write_line):
            yield job
            # The first rank to exit with another code than 0 makes mpirun end the others: not before rank 0 has
            # written its last snapshot.
            job.communicator.barrier()
    except Exception as error:
        if exit_code_of(error) == EXIT_BUG:  # of a lone rank; Python prints the note last
            error.add_note(failure_line(place_of(communicator), str(job.activity), error))
        raise
    finally:
        console.clear_status()
    job.communicator.close()
