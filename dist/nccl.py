"""Ranks with a GPU each: the communicator of arrays in device memory, over NCCL by way of cupy.

In the flow prototxt → graph → net → solver → communicator → snapshot this carries gradients between GPUs. It
stands on another communicator, which knows the ranks, carries NCCL's id to them, and goes on serving arrays in
host memory, bytes and barriers. cupy is loaded (cupy_library.py) when the first NcclCommunicator is made.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn, TypeVar

import numpy as np

from dtrain.dist.communicator import DTYPES, HALVES, Array, Communicator
from dtrain.dist.cupy_library import load_nccl
from dtrain.dist.errors import AgreedFailure, ClusterError, LaunchError
from dtrain.dist.guard import together
from dtrain.dist.nccl_devices import choose_device, with_devices
from dtrain.dist.nccl_errors import IN_PROGRESS, check_versions, naming, status_of
from dtrain.dist.nccl_kernels import HalfKernels
from dtrain.dist.nccl_lane import DeviceArray, Lane, Transfer
from dtrain.dist.reduction import DONE, Reduction

T = TypeVar("T")

_ABORTING_S = 2.0  # what NCCL's own abort, which stops kernels that wait for other ranks, may take


class NcclCommunicator(Communicator):
    """Exchange arrays in device memory by NCCL, and all else by `host`. Making one is collective.

    Arrays in device memory are cupy's, of the dtypes and form that Communicator asks for. They travel on a stream
    of their own: a call sees what the caller's current stream had been given before it, and what that stream is
    given after the call, or after `wait` of a Reduction, sees the result. A Reduction never makes the host wait; who
    wants values on the host waits by `wait_for`. Waiting has no limit of its own, in NCCL's initialisation neither:
    activity.collective tells a watchdog, and `abort` works from its thread.

    While the caller's current stream is being captured into a CUDA graph, every call becomes part of the graph, and
    the host waits in none. Whoever has the graph keeps the arrays for as long as it may be launched.

    float16 and bfloat16 of more than two ranks, and everything while ordered_sums is set, take another way than
    NCCL's all-reduce, which rounds halves at each step (NVIDIA/nccl issue 1026): each rank is sent its slice of
    every rank's array, sums the slices in rank order, and sends the sums to all. As many bytes travel.

    Arguments:
        host: the communicator to stand on, with the same ranks; its activity is shared, and close and abort
            close and abort it too.
        device: the CUDA number of this rank's GPU; None: the one that choose_device gives it.

    Raises:
        LaunchError: cupy, NCCL or a GPU is missing on a rank, two ranks share a GPU, on which NCCL may hang, or ranks
            have several versions of NCCL; on all ranks.
        ClusterError: NCCL's initialisation failed.
    """

    name = "nccl"
    takes_device_arrays = True
    captures = True

    def __init__(self, host: Communicator, device: int | None = None) -> None:
        self._host = host
        self._nccl: Any = None
        self._is_aborted = False
        super().__init__(host.topology)
        self.activity = host.activity
        self._cupy = _on_all_ranks(host, load_nccl, LaunchError)
        self._device = _on_all_ranks(host, lambda: self._open_device(device), LaunchError)
        addresses = host.all_gather_bytes(self._device.pci_bus_id.encode())
        self.topology = with_devices(self.topology, [address.decode() for address in addresses])
        versions = host.all_gather_bytes(str(self._cupy.cuda.nccl.get_version()).encode())
        check_versions(self.topology, [int(version) for version in versions])
        self._lane = Lane(self._cupy)
        self._kernels: dict[np.dtype[Any], HalfKernels] = {}
        self._nccl = self._open_nccl()

    @property
    def ordered_sums(self) -> bool:
        """Whether sums are taken in the order of the ranks, of host arrays too."""
        return self._host.ordered_sums

    @ordered_sums.setter
    def ordered_sums(self, value: bool) -> None:
        self._host.ordered_sums = value

    def broadcast(self, array: Array, root: int = 0) -> None:
        if not self._is_on_device(array):
            super().broadcast(array, root)
            return
        if not 0 <= root < self.world_size:
            raise ValueError(f"broadcast: root must be 0 to {self.world_size - 1}, got {root}")
        with self._inside("broadcast"):
            self._finish("broadcast", array, lambda: self._enqueue_broadcast(array, root))

    def all_reduce(self, array: Array) -> None:
        if not self._is_on_device(array):
            super().all_reduce(array)
            return
        with self._inside("all_reduce"):
            self._finish("all_reduce", array, lambda: self._enqueue_sum(array))

    def start_all_reduce(self, array: Array) -> Reduction:
        if not self._is_on_device(array):
            return super().start_all_reduce(array)
        with self._inside("start_all_reduce"):
            return self._start("all_reduce", array, lambda: self._enqueue_sum(array))

    def all_gather(self, array: Array) -> Array:
        if not self._is_on_device(array):
            return super().all_gather(array)
        with self._inside("all_gather"):
            gathered: Array = self._cupy.empty((self.world_size, *array.shape), array.dtype)
            self._finish("all_gather", array, lambda: self._enqueue_gather(array, gathered))
        return gathered

    def allocate_on_device(self, num_elements: int, dtype: np.dtype[Any]) -> DeviceArray:
        """Return zeros (num_elements,) in this rank's device memory. Not collective."""
        with self._device:
            return self._cupy.zeros(num_elements, dtype)

    def check(self) -> None:
        """Raise ClusterError if NCCL has noticed a failure: a lost connection, a rank that is gone."""
        call = self.activity.collective or "all_reduce"
        if self._is_aborted:
            raise ClusterError(f"{self.topology.describe(self.rank)}: {call}: the job is being ended")
        with self._naming(call):
            try:
                self._nccl.check_async_error()
            except KeyError as error:  # what cupy makes of numbers that it does not know
                if status_of(error) != IN_PROGRESS:
                    raise

    def wait_for(self, is_over: Callable[[], bool], collective: str = "all_reduce") -> None:
        with self._naming(collective):
            super().wait_for(is_over, collective)

    def abort(self, exit_code: int) -> NoReturn:
        """End every rank of the job at once; also while another thread is in NCCL's initialisation.

        Calls under way end without a result, so that a thread that waits for them goes on.
        """
        self._is_aborted = True
        if self._nccl is not None:
            # In a thread that nobody waits for longer than this: `host` ends this process, whatever NCCL does.
            aborting = threading.Thread(target=self._nccl.abort, daemon=True)
            aborting.start()
            aborting.join(_ABORTING_S)
        self._host.abort(exit_code)

    def close(self) -> None:
        call = "closing NCCL's communicator"
        self.wait_for(self._lane.end(), call)
        self._host.barrier()  # NCCL wants all ranks to be done before one of them leaves
        # It would wait until the graphs with its calls are gone, which others may still hold.
        if not self._lane.has_captured:
            with self._naming(call):
                self._nccl.destroy()
        self._host.close()

    def _open_device(self, device: int | None) -> Any:
        """Make this rank's GPU the current one; return it. Raises LaunchError if there is none for it."""
        try:
            num_devices = self._cupy.cuda.runtime.getDeviceCount()
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise LaunchError(
                f"nccl: this rank must see a GPU, got: {error}; use another communicator, or mend the driver"
            ) from error
        listed = [] if device is None else [device] * self.topology.local_size
        chosen = self._cupy.cuda.Device(choose_device(self.topology, num_devices, listed))
        chosen.use()
        return chosen

    def _open_nccl(self) -> Any:
        """Make NCCL's own communicator, which meets all peers."""
        peers = self._peers()
        own_id = _on_all_ranks(self._host, self._make_id, ClusterError)
        unique_id = self._host.all_gather_bytes(own_id)[peers[0]]
        call = "making NCCL's communicator"
        try:
            with self._naming(call), self._inside(call), self._device:
                made = self._cupy.cuda.nccl.NcclCommunicator(len(peers), unique_id, peers.index(self.rank))
        except ClusterError as error:
            if len({self.topology.hosts[peer] for peer in peers}) == 1:
                raise
            raise ClusterError(
                f"{error}; --communicator nccl-hierarchical keeps NCCL inside hosts"
            ) from error
        # cupy destroys one that nobody refers to any more, in which NCCL waits for graphs and for other ranks: when
        # a process ends after a failure, for ever. So one reference stays, and `close` alone destroys.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
        return made

    def _peers(self) -> Sequence[int]:
        """Return the ranks that NCCL joins, of which this is one: all of them."""
        return range(self.world_size)

    def _make_id(self) -> bytes:
        """Return the id by which peers find each other, on the first; on others nothing."""
        with naming(self._cupy.cuda, "making NCCL's id"):
            return bytes(self._cupy.cuda.nccl.get_unique_id()) if self.rank == self._peers()[0] else b""

    def _is_on_device(self, array: DeviceArray) -> bool:
        """Return whether `array` is in device memory, after looking at its form; all else is the base class's."""
        if not isinstance(array, self._cupy.ndarray):
            return False
        if array.dtype not in DTYPES:
            known = ", ".join(dtype.name for dtype in DTYPES)
            raise TypeError(f"nccl: dtype must be one of {known}, got {array.dtype}")
        if not array.flags.c_contiguous:
            raise ValueError(
                f"nccl: array must be contiguous in C order, got strides {array.strides} for shape {array.shape}"
            )
        return True

    def _start(self, call: str, array: DeviceArray, enqueue: Callable[[], None]) -> Reduction:
        """Let `enqueue` give the lane its work, behind that of the caller's stream; return what waits for its end."""
        if array.size == 0:
            return DONE
        with self._naming(call), self._device:
            return self._lane.run(enqueue, array)

    def _finish(self, call: str, array: DeviceArray, enqueue: Callable[[], None]) -> None:
        """Do so and wait: the caller's stream, and, unless it is being captured, the host."""
        transfer = self._start(call, array, enqueue)
        transfer.wait()
        if isinstance(transfer, Transfer) and not transfer.is_captured:
            self.wait_for(transfer.is_over, call)

    def _enqueue_broadcast(self, array: DeviceArray, root: int) -> None:
        pointer = array.data.ptr
        self._nccl.broadcast(pointer, pointer, array.size, self._type(array), root, self._lane.stream.ptr)

    def _enqueue_gather(self, array: DeviceArray, gathered: DeviceArray) -> None:
        self._nccl.allGather(
            array.data.ptr, gathered.data.ptr, array.size, self._type(array), self._lane.stream.ptr
        )

    def _enqueue_sum(self, array: DeviceArray) -> None:
        if self.ordered_sums or (array.dtype in HALVES and self.world_size > 2):
            self._enqueue_sum_of_slices(array)
            return
        pointer, add = array.data.ptr, self._cupy.cuda.nccl.NCCL_SUM
        self._nccl.allReduce(pointer, pointer, array.size, self._type(array), add, self._lane.stream.ptr)

    def _enqueue_sum_of_slices(self, array: DeviceArray) -> None:
        """Sum in rank order, in float32 where `array` holds halves (see the class)."""
        flat = array.reshape(-1)
        ends = [flat.size * (rank + 1) // self.world_size for rank in range(self.world_size)]
        slices = [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        own = slices[self.rank]
        with self._lane.stream:  # so that memory comes from the stream's own pool, and stays while it is used
            memory = self._cupy.empty((self.world_size, own.size), flat.dtype)
            parts = [memory[rank] for rank in range(self.world_size)]
            # As bytes: for halves cupy's own kernels need CUDA's headers, which may not be installed.
            parts[self.rank].view(np.uint8)[...] = own.view(np.uint8)
            self._enqueue_exchange(slices, parts)
        with self._lane.stream:
            if flat.dtype in HALVES:
                self._kernels_of(flat.dtype).sum_parts(memory, own)
            else:
                own[...] = parts[0]
                for part in parts[1:]:
                    own += part
            self._enqueue_exchange([own] * self.world_size, slices)

    def _kernels_of(self, dtype: np.dtype[Any]) -> HalfKernels:
        """Return the kernels for float16 or bfloat16."""
        if dtype not in self._kernels:
            self._kernels[dtype] = HalfKernels(self._cupy, dtype)
        return self._kernels[dtype]

    def _enqueue_exchange(self, sent: Sequence[DeviceArray], received: Sequence[DeviceArray]) -> None:
        """Send sent[r] to each other rank r, and fill received[r] with what comes from it."""
        nccl = self._cupy.cuda.nccl
        nccl.groupStart()
        for peer, (out, into) in enumerate(zip(sent, received, strict=True)):
            if peer != self.rank and out.size:
                self._nccl.send(out.data.ptr, out.size, self._type(out), peer, self._lane.stream.ptr)
            if peer != self.rank and into.size:
                self._nccl.recv(into.data.ptr, into.size, self._type(into), peer, self._lane.stream.ptr)
        nccl.groupEnd()

    def _type(self, array: DeviceArray) -> int:
        """Return NCCL's number for the dtype of `array`."""
        return int(getattr(self._cupy.cuda.nccl, f"NCCL_{array.dtype.name.upper()}"))

    def _naming(self, call: str) -> AbstractContextManager[None]:
        """Turn the errors of NCCL and CUDA into a ClusterError that names the rank and the call."""
        return naming(self._cupy.cuda, f"{self.topology.describe(self.rank)}: {call}")

    # The base class calls these for arrays in host memory alone.

    def _broadcast(self, array: Array, root: int) -> None:
        self._host.broadcast(array, root)

    def _all_reduce(self, array: Array) -> None:
        self._host.all_reduce(array)

    def _start_all_reduce(self, array: Array) -> Reduction:
        return self._host.start_all_reduce(array)

    def _allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        return self._host.allocate(num_elements, dtype)

    def _all_gather(self, array: Array) -> Array:
        return self._host.all_gather(array)

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        return self._host.all_gather_bytes(payload)

    def _barrier(self) -> None:
        self._host.barrier()


def _on_all_ranks(host: Communicator, action: Callable[[], T], error: type[Exception]) -> T:
    """Run `action` and return its result; raise `error` on all ranks if one raised it. Collective.

    Not AgreedFailure, which the launcher takes as said: no communicator, no one to say it yet.
    """
    try:
        return together(host, action, (error,))
    except AgreedFailure as failure:
        raise error(str(failure)) from failure
