"""The lane of NCCL's calls: a CUDA stream beside the caller's, and the order between the two by events.

In the flow prototxt → graph → net → solver → communicator → snapshot nccl.py gives its calls to a lane. Nothing here
makes the host wait, so that what the caller's stream is captured into, a CUDA graph, has the lane's work in it too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from dtrain.dist.cupy_library import has_happened, mark
from dtrain.dist.reduction import Reduction

DeviceArray = Any  # a cupy.ndarray, which mypy cannot see where cupy is not installed


class Lane:
    """A stream of this rank's current GPU.

    stream: cupy's. has_captured: whether any of its work has become part of a graph.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        # Of high priority: the kernels of backward fill a GPU, and those of NCCL need little of it.
        self.stream = cupy.cuda.Stream(non_blocking=True, priority=-1)
        self.has_captured = False
        self._under_way: deque[Transfer] = deque()

    def run(self, enqueue: Callable[[], None], array: DeviceArray) -> Transfer:
        """Let `enqueue` give the stream its work on `array`, behind all that the caller's current stream has.

        While that stream is being captured, this one is too, from here to `Transfer.wait`, which must come before
        the end of the capture.
        """
        current = self._cupy.cuda.get_current_stream()
        is_captured = bool(current.is_capturing())
        self.stream.wait_event(mark(self._cupy, current))
        enqueue()
        transfer = Transfer(self._cupy, mark(self._cupy, self.stream), array, is_captured)
        if is_captured:
            self.has_captured = True
        else:
            self._let_go()
            self._under_way.append(transfer)
        return transfer

    def end(self) -> Callable[[], bool]:
        """Return what says whether the stream is done with all that it was given so far."""
        event = mark(self._cupy, self.stream)
        return lambda: has_happened(self._cupy, event)

    def _let_go(self) -> None:
        """Forget the transfers that are over, and with them their arrays."""
        while self._under_way and self._under_way[0].is_over():
            self._under_way.popleft()


class Transfer(Reduction):
    """What a lane was given, up to an event.

    It holds the array, whose memory cupy would give to others while NCCL still writes it. In a graph that is the
    caller's to do: for as long as the graph may be launched.

    is_captured: whether it is part of a graph, and not under way.
    """

    def __init__(self, cupy: Any, event: Any, array: DeviceArray, is_captured: bool) -> None:
        self._cupy = cupy
        self._event = event
        self._array = array
        self.is_captured = is_captured
        self._is_awaited = False

    def is_over(self) -> bool:
        """Return whether the GPU is done with it. Raises CUDARuntimeError if the GPU has failed."""
        return has_happened(self._cupy, self._event)

    def test(self) -> bool:
        """Return whether it is done, or will be before anything that a stream that waits for it does from now on.

        In a graph nothing is done before the graph is launched.
        """
        return self._is_awaited or (not self.is_captured and self.is_over())

    def wait(self) -> None:
        """Let the caller's current stream wait; the host goes on."""
        self._cupy.cuda.get_current_stream().wait_event(self._event)
        self._is_awaited = True
