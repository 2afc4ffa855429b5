"""A convolution or inner product with what comes behind it: what engines that do so share.

Each engine says how an operation is made that adds and rectifies in forward, and how a gradient passes that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import Wanted


class FusedWeightedBase(ABC):
    """Carry out a FusedWeightedSpec. The diff that the operation gets is written over y's, or into added.diff.

    operation: what does the most of it, whose backward knows of nothing behind it; a convolution where a blob is
    added, which its forward then takes as the last argument. relu: whether max(·, 0) comes last.
    """

    operation: Any
    relu: bool

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, added: Blob | None, y: Blob) -> None:
        """Compute y.data."""
        more = () if added is None else (added,)
        self.operation.forward(x, weight, bias, y, *more)

    def backward(
        self,
        x: Blob,
        weight: Blob,
        bias: Blob | None,
        added: Blob | None,
        y: Blob,
        wanted: Wanted,
        wants_added: bool,
    ) -> None:
        """Compute the wanted diffs."""
        wants_own = wanted.x or wanted.weight or wanted.bias
        if added is not None and wants_added:
            self.pass_on(y, added)
            y = added
        elif self.relu and wants_own:
            self.pass_on(y, y)
        if wants_own:
            self.operation.backward(x, weight, bias, y, wanted)

    @abstractmethod
    def pass_on(self, y: Blob, target: Blob) -> None:
        """Overwrite target.diff by y.diff, or what relu lets through of it; target may be y."""
