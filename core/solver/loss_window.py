"""The smoothed loss: the mean of the last `average_loss` losses, as Caffe displays it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class LossWindow:
    """The last `size` losses."""

    def __init__(self, size: int) -> None:
        self._losses: deque[float] = deque(maxlen=size)

    def add(self, loss: float) -> None:
        """Enter the loss of an iteration, dropping the oldest when full."""
        self._losses.append(loss)

    @property
    def mean(self) -> float:
        """The mean of what is in; 0 when empty."""
        return sum(self._losses) / len(self._losses) if self._losses else 0.0

    @property
    def losses(self) -> list[float]:
        """What is in, oldest first: what a snapshot keeps."""
        return list(self._losses)

    def restart(self, losses: Iterable[float] = ()) -> None:
        """Forget everything but `losses`."""
        self._losses.clear()
        self._losses.extend(losses)
