"""What a rank is doing now, in words, for the line that is printed if it fails.

In the flow prototxt → graph → net → solver → communicator → snapshot every stage may set it; failure.py reads
it, and where the rank is watched, its supervisor, through the mirror. Setting an attribute takes less than a
microsecond, cheap enough for every layer of every iteration.
"""

from __future__ import annotations

from dtrain.dist.mirror import Mirror, describe_activity


class Activity:
    """The iteration a rank is in, and what it does there. Setting any of it tells the supervisor: not stuck."""

    def __init__(self) -> None:
        self._iteration: int | None = None
        self._doing = "starting"
        self._collective = ""
        self._doing_bytes, self._collective_bytes = self._doing.encode(), b""
        self._mirror: Mirror | None = None

    @property
    def iteration(self) -> int | None:
        """The iteration, None before the first."""
        return self._iteration

    @iteration.setter
    def iteration(self, iteration: int | None) -> None:
        self._iteration = iteration
        if self._mirror is not None:
            self._mirror.write(iteration, self._doing_bytes, self._collective_bytes)

    @property
    def doing(self) -> str:
        """What reads after "while": 'computing layer "conv1"', "reading a batch"."""
        return self._doing

    @doing.setter
    def doing(self, doing: str) -> None:
        self._doing = doing
        if self._mirror is not None:
            self._doing_bytes = doing.encode(errors="replace")
            self._mirror.write(self._iteration, self._doing_bytes, self._collective_bytes)

    @property
    def collective(self) -> str:
        """The collective call it is in, "all_reduce"; there it may wait for other ranks. "": in none."""
        return self._collective

    @collective.setter
    def collective(self, collective: str) -> None:
        self._collective = collective
        if self._mirror is not None:
            self._collective_bytes = collective.encode(errors="replace")
            self._mirror.write(self._iteration, self._doing_bytes, self._collective_bytes)

    def show_in(self, mirror: Mirror | None) -> None:
        """Show this activity in `mirror` from now on, where there is one."""
        self._mirror = mirror
        self.doing, self.collective = self._doing, self._collective

    def __str__(self) -> str:
        """Return ``at iteration 120 while computing layer "conv1"``."""
        return describe_activity(self._iteration, self._doing)
