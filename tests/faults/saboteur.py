"""A layer that does nothing to its data, and on one rank lets a fault happen: the hand inside the rank's process.

The net of test_faults.py has it behind its data. Where ENVIRONMENT gives this rank a fault, it wraps the functions of
dtrain in which the fault is to strike; no code of dtrain's knows of it.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dtrain as caffe
from dtrain.core.layers import LAYERS
from dtrain.core.snapshots.commit import Commit
from dtrain.data.datum_reader import DatumReader
from dtrain.dist.communicator import Communicator
from dtrain.dist.launch_environment import launched_rank
from dtrain.dist.reduction import Reduction
from dtrain.proto import caffe_pb2
from tests.faults.fault import ENVIRONMENT, REQUESTS, Fault, from_text

COMMAND = "DTRAIN_TEST_COMMAND"  # what the kind "command" runs
HIT_FILE = "DTRAIN_TEST_HIT"  # names the file that is written, with the time, when the fault happens

SLOW = "slow"  # a kind that befalls several iterations
NAP_S, NUM_NAPS = 0.4, 6  # some hundred times what an iteration takes on an idle machine

WANTED_BYTES = 2**30  # what a rank short of memory asks for


class Saboteur(caffe.Layer):
    """Works in place and passes all on; notes when an iteration begins."""

    def setup(self, bottom: Any, top: Any) -> None:
        """Arm the fault, if this rank has one."""
        text = os.environ.get(ENVIRONMENT)
        fault = from_text(text) if text else None
        self.hand = Hand(fault) if fault and fault.rank == launched_rank(os.environ) else None
        if self.hand:
            self.hand.arm()

    def reshape(self, bottom: Any, top: Any) -> None:
        """Leave the shape as it is."""

    def forward(self, bottom: Any, top: Any) -> None:
        """Count the iteration."""
        if self.hand:
            self.hand.begin_iteration()

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Pass the gradient on, which in place is nothing."""


class Hand:
    """Lets `fault` happen, once."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.num_begun = 0  # iterations
        self.is_done = False
        self._lap_s, self._began = 0.0, 0.0

    def arm(self) -> None:
        """Wrap what is to be hit, or strike at once if it is the start."""
        if self.fault.place == "start":
            self.strike()
        arming: dict[str, Callable[[], None]] = {
            "data": self._arm_reader,
            "forward": lambda: self._arm_layer(
                "forward", caffe_pb2.TRAIN, num_begun=self.fault.iteration + 1
            ),
            "backward": lambda: self._arm_layer(
                "backward", caffe_pb2.TRAIN, num_begun=self.fault.iteration + 1
            ),
            "test": lambda: self._arm_layer("forward", caffe_pb2.TEST, num_begun=self.fault.iteration),
            "all_reduce": self._arm_reductions,
            "snapshot": self._arm_snapshot,
        }
        if self.fault.place in arming:
            arming[self.fault.place]()

    def begin_iteration(self) -> None:
        """Note that an iteration begins; strike if "python" or "any" is what is to be hit in it."""
        now = time.perf_counter()
        self._lap_s, self._began = now - self._began, now
        self.num_begun += 1
        if self.fault.kind == SLOW and self.num_begun <= NUM_NAPS:
            time.sleep(NAP_S)
        if self.num_begun != self.fault.iteration + 1:
            return
        if self.fault.place == "python":
            self.strike()
        elif self.fault.place == "any":
            threading.Timer(self.fault.delay * self._lap_s, self.strike).start()

    def strike(self) -> None:
        """Let the fault happen, unless it has."""
        if self.is_done:
            return
        self.is_done = True
        Path(os.environ[HIT_FILE]).write_text(repr(time.time()))
        if self.fault.kind in SIGNALS:
            os.kill(os.getppid() if self.fault.hits_supervisor else os.getpid(), SIGNALS[self.fault.kind])
        else:
            ACTS[self.fault.kind]()

    def _arm_layer(self, method: str, phase: int, num_begun: int) -> None:
        def is_here(layer: Any, *args: Any) -> bool:
            return layer.phase == phase and self.num_begun == num_begun

        self._wrap(LAYERS[self.fault.layer_type], method, is_here)

    def _arm_reader(self) -> None:
        def is_here(reader: Any, positions: Any, batch: Any) -> bool:
            first = self.fault.iteration * len(positions) * self.fault.num_ranks
            return bool(reader._transformer.train and positions[0] >= first)

        self._wrap(DatumReader, "read", is_here)

    def _arm_snapshot(self) -> None:
        steps = iter(range(-self.fault.step, sys.maxsize))
        begins = f"_iter_{self.fault.iteration}."
        begun = False

        def is_here(*args: Any) -> bool:
            nonlocal begun
            begun = begun or any(begins in getattr(arg, "name", "") for arg in args)
            return begun and next(steps) >= 0

        self._wrap(Commit, "add", is_here)
        self._wrap(os, "replace", is_here)

    def _arm_reductions(self) -> None:
        """Strike where the sums of a bucket are waited for."""
        start, hand = Communicator.start_all_reduce, self

        @functools.wraps(start)
        def started(communicator: Communicator, array: Any) -> Reduction:
            reduction = start(communicator, array)
            is_due = hand.num_begun == hand.fault.iteration + 1
            return _Ambush(reduction, hand.strike) if is_due else reduction

        Communicator.start_all_reduce = started  # type: ignore[method-assign, assignment]

    def _wrap(self, owner: Any, name: str, is_here: Callable[..., bool]) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def wrapped(*args: Any, **keywords: Any) -> Any:
            if is_here(*args):
                self.strike()
            return function(*args, **keywords)

        setattr(owner, name, wrapped)


class _Ambush(Reduction):
    """A reduction with a fault in its wait."""

    def __init__(self, reduction: Reduction, strike: Callable[[], None]) -> None:
        self._reduction, self._strike = reduction, strike

    def test(self) -> bool:
        return self._reduction.test()

    def wait(self) -> None:
        self._strike()
        self._reduction.wait()


def fail() -> None:
    """Raise what no code expects."""
    raise ZeroDivisionError("sabotage")


def run_out_of_memory() -> None:
    """Take the limit of the address space down to what there is, then ask for more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + WANTED_BYTES // 2
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    np.ones(WANTED_BYTES, np.uint8)


def run_out_of_disk() -> None:
    """Let no file grow beyond 100 bytes from now on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    **{name: signal.Signals[name] for name in REQUESTS},
}

ACTS: dict[str, Callable[[], object]] = {
    "exception": fail,
    "exit": lambda: sys.exit(5),
    "memory": run_out_of_memory,
    "disk": run_out_of_disk,
    SLOW: lambda: None,
    "truncation": lambda: os.truncate("lmdb/data.mdb", 0),
    "command": lambda: subprocess.run(os.environ[COMMAND].split(), check=True),
}
