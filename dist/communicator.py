"""The communicator: how the ranks of a job exchange arrays, and the manual of doing so.

In the flow prototxt → graph → net → solver → communicator → snapshot the solver hands its gradients to a
communicator, which sums them over all ranks. One implementation a file: single.py, threads.py, mpi.py, window.py,
hierarchical.py; create.py chooses among them.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray

from dtrain.dist.activity import Activity
from dtrain.dist.memory import aligned_zeros
from dtrain.dist.reduction import DONE, Reduction
from dtrain.dist.topology import Topology

Array = NDArray[Any]

BFLOAT16 = np.dtype(bfloat16)
HALVES = (np.dtype("float16"), BFLOAT16)  # summed in float32
DTYPES = (*HALVES, *(np.dtype(name) for name in ("float32", "float64", "int64", "uint8")))
_KNOWN_DTYPES = frozenset(DTYPES)

_SPINNING_S = 200e-6  # how long wait_for asks without pause: as long as a small net's iteration takes
_PAUSE_S = 50e-6


class Communicator(ABC):
    """Exchange arrays between all ranks of a job.

    A *collective* call must be made by every rank, in the same order, with arrays of the same shape and dtype
    and the same root; it may return on one rank before another has entered it. Nothing checks this
    beforehand, except the communicator of threads.py: a call that one rank leaves out makes the others wait
    for ever, which is why code that can fail on a single rank runs inside `guard.together` or
    `failure.end_job_on_failure`.

    Arrays are numpy arrays, contiguous in C order, of dtype float16, bfloat16 (ml_dtypes'), float32, float64,
    int64 or uint8, of any shape, without elements too; anything else is a bug of the caller, a TypeError or
    ValueError before anything is sent. All calls block, start_all_reduce excepted, and one thread of a rank is
    inside one at a time, `abort` excepted.

    Implementations provide the methods with a leading underscore and may rely on arrays that were checked;
    any of their calls raises ClusterError if the transport reports a failure.

    Attributes:
        name: the name under which create.py finds this kind of communicator.
        topology: where each rank runs.
        ordered_sums: whether all_reduce sums in the order of the ranks, so that the result is the same to the
            last bit whatever hosts the ranks are on and whatever carries the values; set alike on all ranks.
        activity: what this rank is doing; while it is in a collective call, activity.collective names the call.
        waited_s: seconds that this rank has spent in collective calls so far.
        reason: why this kind was chosen, "4 ranks on one host"; create.py sets it.
        lock: held in each call; who tests or waits for a Reduction while another thread may be inside holds it too.
        takes_device_arrays: whether arrays may be cupy's, in this rank's GPU, in all calls but those with bytes.
        captures: whether calls with arrays on a GPU leave the host out, so that they go on by themselves and, while
            the caller's current stream is being captured, become part of a CUDA graph.
    """

    name: ClassVar[str]
    takes_device_arrays: ClassVar[bool] = False
    captures: ClassVar[bool] = False

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.ordered_sums = False
        self.activity = Activity()
        self.waited_s = 0.0
        self.reason = ""
        self.lock = threading.RLock()

    @property
    def rank(self) -> int:
        """Return this rank's number, 0 to world_size - 1. Not collective."""
        return self.topology.rank

    @property
    def world_size(self) -> int:
        """Return the number of ranks. Not collective."""
        return self.topology.world_size

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Overwrite `array` on every rank with what it holds on rank `root`, in place. Collective."""
        self._accept(array, writes=True)
        if not 0 <= root < self.world_size:
            raise ValueError(f"broadcast: root must be 0 to {self.world_size - 1}, got {root}")
        with self._inside("broadcast"):
            self._broadcast(array, root)

    def all_reduce(self, array: Array) -> None:
        """Overwrite `array` on every rank with its elementwise sum over all ranks, in place. Collective.

        All ranks get the same bits, and the same inputs give the same bits again; the order of summation is
        the implementation's, unless ordered_sums is set. float16 and bfloat16 travel as they are, are summed in
        float32 and rounded once; uint8 and int64 wrap around.
        """
        self._accept(array, writes=True)
        with self._inside("all_reduce"):
            self._all_reduce(array)

    def start_all_reduce(self, array: Array) -> Reduction:
        """Begin an all_reduce of `array`; return what moves it on and waits for its end. Collective.

        The sum is the one that all_reduce gives, to the last bit. Nothing may touch `array` until the reduction
        is done. Reductions that were started are done in the order of their starts, and every other collective
        call may be made meanwhile. Not every kind moves on by itself: call `test` from time to time.
        """
        self._accept(array, writes=True)
        with self._inside("start_all_reduce"):
            return self._start_all_reduce(array)

    def allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        """Return zeros (num_elements,) in memory that this communicator reduces fastest, such as one that all
        ranks of a host have mapped. Collective.

        It starts on a cache line, and stays valid as long as somebody refers to it.
        """
        with self._inside("allocate"):
            return self._allocate(num_elements, dtype)

    def all_gather(self, array: Array) -> Array:
        """Return the arrays of all ranks, in rank order, as one new array. Collective.

        The result has the shape (world_size, *array.shape); `array` itself is left as it is.
        """
        self._accept(array, writes=False)
        with self._inside("all_gather"):
            return self._all_gather(array)

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """Return the payloads of all ranks in rank order; their lengths may differ. Collective.

        Meant for texts and digests, not for gradients.
        """
        if not isinstance(payload, bytes):
            raise TypeError(f"all_gather_bytes: payload must be bytes, got {type(payload).__name__}")
        with self._inside("all_gather_bytes"):
            return self._all_gather_bytes(payload)

    def barrier(self) -> None:
        """Return only after every rank has called it. Collective."""
        with self._inside("barrier"):
            self._barrier()

    def check(self) -> None:  # noqa: B027
        """Raise ClusterError if a call that goes on by itself, on a GPU, has failed. Not collective; never waits.

        Calls that this rank waits in report their failures themselves.
        """

    def wait_for(self, is_over: Callable[[], bool], collective: str = "all_reduce") -> None:
        """Return when `is_over` says so of work on a GPU that may wait for other ranks. Not collective.

        All waiting of the host for such work goes by way of this: meanwhile activity.collective is `collective`,
        and `check` is made.
        """
        if self.world_size > 1:
            self.activity.collective = collective
        pausing_from = time.perf_counter() + _SPINNING_S
        while True:
            was_over = is_over()
            self.check()  # after it: what has failed looks as if it were over
            if was_over:
                break
            time.sleep(_PAUSE_S if time.perf_counter() > pausing_from else 0)
        self.activity.collective = ""

    @abstractmethod
    def abort(self, exit_code: int) -> NoReturn:
        """End every rank of the job at once, whatever it is doing. Not collective; from any thread.

        The output of this rank is flushed first; no clean-up code runs.

        Arguments:
            exit_code: what the job exits with, 1 to 255.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the communicator holds; no call may follow. Collective."""

    def _accept(self, array: Array, writes: bool) -> None:
        """Raise TypeError or ValueError unless `array` is one that this communicator takes."""
        check_array(array, writes)

    def _inside(self, call: str) -> _Call:
        """Return what lets `activity` name the collective call while this rank is in it."""
        self.activity.collective = call
        return _Call(self)

    def _start_all_reduce(self, array: Array) -> Reduction:
        """Do all of it at once; kinds that can do it bit by bit override this."""
        self._all_reduce(array)
        return DONE

    def _allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        """Take plain memory; kinds that know of better override this."""
        return aligned_zeros(num_elements, dtype)

    @abstractmethod
    def _broadcast(self, array: Array, root: int) -> None: ...

    @abstractmethod
    def _all_reduce(self, array: Array) -> None: ...

    @abstractmethod
    def _all_gather(self, array: Array) -> Array: ...

    @abstractmethod
    def _all_gather_bytes(self, payload: bytes) -> list[bytes]: ...

    @abstractmethod
    def _barrier(self) -> None: ...


class _Call:
    """The time that a rank is in a collective call. A generator's with block would take longer than a short call."""

    __slots__ = ("_began", "_communicator")

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator

    def __enter__(self) -> None:
        self._began = time.monotonic()
        self._communicator.lock.acquire()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._communicator.lock.release()
        if kind is None:  # else the name is kept, for the line that is printed then
            self._communicator.waited_s += time.monotonic() - self._began
            self._communicator.activity.collective = ""


def check_array(array: Array, writes: bool) -> None:
    """Raise TypeError or ValueError unless `array` is one that communicators take (see Communicator)."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"communicator: array must be a numpy array, got {type(array).__name__}")
    if array.dtype not in _KNOWN_DTYPES:
        known = ", ".join(dtype.name for dtype in DTYPES)
        raise TypeError(f"communicator: dtype must be one of {known}, got {array.dtype}")
    flags = array.flags
    if not flags.c_contiguous:
        raise ValueError(
            "communicator: array must be contiguous in C order,"
            f" got strides {array.strides} for shape {array.shape}"
        )
    if writes and not flags.writeable:
        raise ValueError("communicator: array must be writable, got a read-only one")
