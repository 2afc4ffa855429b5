"""What a rank is doing now, in words, for the line that is printed if it fails.

In the flow prototxt → graph → net → solver → communicator → snapshot every stage may set it; failure.py reads
it. Setting it is two plain attributes, cheap enough for every layer of every iteration.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Activity:
    """The iteration a rank is in, and what it does there."""

    iteration: int | None = None  # None before the first
    doing: str = "starting"  # reads after "while": 'computing layer "conv1"', "reading a batch"
    collective: str = ""  # the collective call it is in, "all_reduce"; there it may wait for other ranks

    def __str__(self) -> str:
        """Return ``at iteration 120 while computing layer "conv1"``."""
        when = "before the first iteration" if self.iteration is None else f"at iteration {self.iteration}"
        return f"{when} while {self.doing}"
