"""An all_reduce under way: what a communicator's start_all_reduce returns.

In the flow prototxt → graph → net → solver → communicator → snapshot the reducer starts one for each bucket of
gradients while backward goes on, and moves them on between two layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Reduction(ABC):
    """A reduction that has begun and may not be done. Not thread-safe; neither call is collective."""

    @abstractmethod
    def test(self) -> bool:
        """Move on as far as it goes without waiting for other ranks; return whether it is done.

        Raises ClusterError if the transport reports a failure.
        """

    @abstractmethod
    def wait(self) -> None:
        """Return when it is done; on a GPU, when all that the caller's current stream is given next comes after it.

        Raises ClusterError if the transport reports a failure.
        """


class _Done(Reduction):
    """A reduction that was done when it was started."""

    def test(self) -> bool:
        return True

    def wait(self) -> None:
        pass


DONE = _Done()
