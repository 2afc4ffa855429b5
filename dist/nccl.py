"""Ranks with a GPU each: the communicator of arrays in device memory, over NCCL by way of cupy.

In the flow prototxt → graph → net → solver → communicator → snapshot this carries gradients between GPUs. It
stands on another communicator, which knows the ranks, carries NCCL's id to them, and goes on serving arrays in
host memory, bytes and barriers. cupy is loaded (cupy_library.py) when the first NcclCommunicator is made.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import numpy as np

from dtrain.dist.communicator import DTYPES, HALVES, Array, Communicator
from dtrain.dist.cupy_library import load_nccl
from dtrain.dist.errors import AgreedFailure, ClusterError, LaunchError
from dtrain.dist.guard import together
from dtrain.dist.nccl_devices import choose_device, with_devices
from dtrain.dist.reduction import DONE, Reduction

T = TypeVar("T")

DeviceArray = Any  # a cupy.ndarray, which mypy cannot see where cupy is not installed

_SPINNING_S = 200e-6  # how long a wait asks without pause: as long as a small all_reduce takes
_PAUSE_S = 50e-6
_ABORTING_S = 2.0  # what NCCL's own abort, which stops kernels that wait for other ranks, may take


class NcclCommunicator(Communicator):
    """Exchange arrays in device memory by NCCL, and all else by `host`. Making one is collective.

    Arrays in device memory are cupy's, of the dtypes and form that Communicator asks for. They travel on a stream
    of their own: a call sees what the caller's current stream had been given before it, and what the stream is
    given after the call, or after `wait`, sees the result. Waiting has no limit of its own, in NCCL's
    initialisation neither: activity.collective tells a watchdog, and `abort` works from its thread.

    float16 and bfloat16 of more than two ranks, and everything while ordered_sums is set, take another way than
    NCCL's all-reduce, which rounds halves at each step (NVIDIA/nccl issue 1026): each rank is sent its slice of
    every rank's array, sums the slices in rank order, and sends the sums to all. As many bytes travel.

    Arguments:
        host: the communicator to stand on, with the same ranks; its activity is shared, and close and abort
            close and abort it too.
        device: the CUDA number of this rank's GPU; None: the one that choose_device gives it.

    Raises:
        LaunchError: cupy, NCCL or a GPU is missing on a rank, or two ranks share a GPU, on which NCCL may hang; on
            all ranks.
        ClusterError: NCCL's initialisation failed.
    """

    name = "nccl"
    takes_device_arrays = True

    def __init__(self, host: Communicator, device: int | None = None) -> None:
        self._host = host
        super().__init__(host.topology)
        self.activity = host.activity
        self._cupy = _on_all_ranks(host, load_nccl, LaunchError)
        self._device = _on_all_ranks(host, lambda: self._open_device(device), LaunchError)
        addresses = host.all_gather_bytes(self._device.pci_bus_id.encode())
        self.topology = with_devices(self.topology, [address.decode() for address in addresses])
        self._nccl, self._stream = self._open_nccl()
        self._under_way: deque[_Transfer] = deque()

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
            self._start("broadcast", array, lambda: self._enqueue_broadcast(array, root)).wait()

    def all_reduce(self, array: Array) -> None:
        if not self._is_on_device(array):
            super().all_reduce(array)
            return
        with self._inside("all_reduce"):
            self._start("all_reduce", array, lambda: self._enqueue_sum(array)).wait()

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
            self._start("all_gather", array, lambda: self._enqueue_gather(array, gathered)).wait()
        return gathered

    def allocate_on_device(self, num_elements: int, dtype: np.dtype[Any]) -> DeviceArray:
        """Return zeros (num_elements,) in this rank's device memory. Not collective."""
        with self._device:
            return self._cupy.zeros(num_elements, dtype)

    def abort(self, exit_code: int) -> NoReturn:
        # In a thread that nobody waits for longer than this: `host` ends this process, whatever NCCL does.
        aborting = threading.Thread(target=self._nccl.abort, daemon=True)
        aborting.start()
        aborting.join(_ABORTING_S)
        self._host.abort(exit_code)

    def close(self) -> None:
        with self._naming("close"):
            self._stream.synchronize()
            self._under_way.clear()
            self._host.barrier()  # NCCL wants all ranks to be done before one of them leaves
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

    def _open_nccl(self) -> tuple[Any, Any]:
        """Make NCCL's own communicator, which meets all ranks, and the stream that arrays travel on."""
        own_id = _on_all_ranks(self._host, self._make_id, ClusterError)
        unique_id = self._host.all_gather_bytes(own_id)[0]
        call = "making NCCL's communicator"
        with self._naming(call), self._inside(call):
            # Of high priority: the kernels of backward fill a GPU, and those of NCCL need little of it.
            stream = self._cupy.cuda.Stream(non_blocking=True, priority=-1)
            made = self._cupy.cuda.nccl.NcclCommunicator(self.world_size, unique_id, self.rank)
        return made, stream

    def _make_id(self) -> bytes:
        """Return the id by which ranks find each other, on rank 0; on others nothing."""
        with self._naming("making NCCL's id"):
            return bytes(self._cupy.cuda.nccl.get_unique_id()) if self.rank == 0 else b""

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
        """Let `enqueue` give the stream its work, behind that of the caller's; return what waits for its end."""
        if array.size == 0:
            return DONE
        with self._naming(call), self._device:
            while self._under_way and self._under_way[0].is_over:
                self._under_way.popleft()
            self._stream.wait_event(self._mark(self._cupy.cuda.get_current_stream()))
            enqueue()
            transfer = _Transfer(self, call, self._mark(self._stream), array)
        self._under_way.append(transfer)
        return transfer

    def _mark(self, stream: Any) -> Any:
        """Return an event that is over when what `stream` has been given so far is done."""
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    def _enqueue_broadcast(self, array: DeviceArray, root: int) -> None:
        pointer = array.data.ptr
        self._nccl.broadcast(pointer, pointer, array.size, self._type(array), root, self._stream.ptr)

    def _enqueue_gather(self, array: DeviceArray, gathered: DeviceArray) -> None:
        self._nccl.allGather(
            array.data.ptr, gathered.data.ptr, array.size, self._type(array), self._stream.ptr
        )

    def _enqueue_sum(self, array: DeviceArray) -> None:
        if self.ordered_sums or (array.dtype in HALVES and self.world_size > 2):
            self._enqueue_sum_of_slices(array)
            return
        pointer, add = array.data.ptr, self._cupy.cuda.nccl.NCCL_SUM
        self._nccl.allReduce(pointer, pointer, array.size, self._type(array), add, self._stream.ptr)

    def _enqueue_sum_of_slices(self, array: DeviceArray) -> None:
        """Sum in rank order, in float32 where `array` holds halves (see the class)."""
        flat = array.reshape(-1)
        ends = [flat.size * (rank + 1) // self.world_size for rank in range(self.world_size)]
        slices = [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        own = slices[self.rank]
        with self._stream:  # so that its memory comes from the stream's own pool, and stays while it is used
            parts = self._cupy.empty((self.world_size, own.size), flat.dtype)
            parts[self.rank] = own
            self._enqueue_exchange(slices, list(parts))
        with self._stream:
            total = parts[0].astype(np.float32 if flat.dtype in HALVES else flat.dtype)
            for part in parts[1:]:
                total += part.astype(total.dtype)
            own[...] = total
            self._enqueue_exchange([own] * self.world_size, slices)

    def _enqueue_exchange(self, sent: Sequence[DeviceArray], received: Sequence[DeviceArray]) -> None:
        """Send sent[r] to each other rank r, and fill received[r] with what comes from it."""
        nccl = self._cupy.cuda.nccl
        nccl.groupStart()
        for peer, (out, into) in enumerate(zip(sent, received, strict=True)):
            if peer != self.rank and out.size:
                self._nccl.send(out.data.ptr, out.size, self._type(out), peer, self._stream.ptr)
            if peer != self.rank and into.size:
                self._nccl.recv(into.data.ptr, into.size, self._type(into), peer, self._stream.ptr)
        nccl.groupEnd()

    def _type(self, array: DeviceArray) -> int:
        """Return NCCL's number for the dtype of `array`."""
        return int(getattr(self._cupy.cuda.nccl, f"NCCL_{array.dtype.name.upper()}"))

    def _check(self, call: str) -> None:
        """Raise ClusterError if NCCL has noticed a failure: a lost connection, a rank that is gone."""
        with self._naming(call):
            self._nccl.check_async_error()

    @contextmanager
    def _naming(self, call: str) -> Iterator[None]:
        """Turn the errors of NCCL and CUDA into a ClusterError that names the call."""
        cuda = self._cupy.cuda
        try:
            yield
        except (cuda.nccl.NcclError, cuda.runtime.CUDARuntimeError) as error:
            raise ClusterError(f"{self.topology.describe(self.rank)}: {call}: NCCL says {error}") from error

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


class _Transfer(Reduction):
    """What a stream has been given, up to an event.

    It holds the array, whose memory cupy would give to others while NCCL still writes it.
    """

    def __init__(self, communicator: NcclCommunicator, call: str, over: Any, array: DeviceArray) -> None:
        self._communicator = communicator
        self._call = call
        self._over = over
        self._array = array

    @property
    def is_over(self) -> bool:
        """Whether the GPU is done with it."""
        return bool(self._over.done)

    def test(self) -> bool:
        self._communicator._check(self._call)
        with self._communicator._naming(self._call):
            return self.is_over

    def wait(self) -> None:
        pausing_from = time.perf_counter() + _SPINNING_S
        while not self.test():
            time.sleep(_PAUSE_S if time.perf_counter() > pausing_from else 0)


def _on_all_ranks(host: Communicator, action: Callable[[], T], error: type[Exception]) -> T:
    """Run `action` and return its result; raise `error` on all ranks if one raised it. Collective.

    Not AgreedFailure, which the launcher takes as said: no communicator, no one to say it yet.
    """
    try:
        return together(host, action, (error,))
    except AgreedFailure as failure:
        raise error(str(failure)) from failure
