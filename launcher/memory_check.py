"""Whether a run fits the memory that it computes in, asked before it begins: of a CPU's nothing is said.

Stands between the net and the solver in the flow prototxt → graph → net → solver → communicator → snapshot. A GPU's
is gpu_memory.py's, which a CPU need not wait for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dtrain.core.net.net import Net
from dtrain.core.registry import Registry


class MemoryCheck:
    """Finds all well: what a host has not got it takes from its disk, or its kernel says so."""

    def check(
        self, nets: Sequence[Net], recomputes: bool = False, shares: bool = True, captures: bool = False
    ) -> list[str]:
        """Return what is to be said of `nets`, which are there with their params and run in turn.

        recomputes, shares, captures: as the run has it. Raises UserError for what can't be.
        """
        return []

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let what is raised for want of memory in the with block be a UserError."""
        yield


MEMORY_CHECKS: Registry[type[MemoryCheck]] = Registry("place to compute in")
MEMORY_CHECKS.register("cpu")(MemoryCheck)
MEMORY_CHECKS.register_module("gpu", "dtrain.launcher.gpu_memory")


def make_memory_check(on_gpu: bool) -> MemoryCheck:
    """Return what checks the memory of this rank's GPU, or of the host if it has none."""
    return MEMORY_CHECKS["gpu" if on_gpu else "cpu"]()
