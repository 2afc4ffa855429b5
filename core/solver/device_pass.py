"""A pass through the net on a GPU of which the host sees nothing: what is captured into a CUDA graph.

    forward (the losses summed there) → backward → gradient exchange → update

Beside iteration.py, whose arithmetic it is, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.engines.cupy.graph import Mailbox
from dtrain.core.engines.cupy.sending import Sender
from dtrain.core.net.arena import Arena
from dtrain.core.net.net import Net
from dtrain.core.net.params import Param
from dtrain.core.solver.extra_values import NUM_EXTRA, Extra
from dtrain.core.solver.gradient_exchange import GradientExchange

if TYPE_CHECKING:
    from dtrain.core.solver.gpu_updater import GpuUpdater


class DevicePass:
    """Runs passes of one net whose params are in `arena`, on the GPU.

    Layers without bottoms have run before: what they give is there. replays: of the engine, how many passes a
    replayed graph is after its capture; a pass leaves 0 there.
    """

    def __init__(self, net: Net, exchange: GradientExchange, updater: GpuUpdater, arena: Arena) -> None:
        self._net = net
        self._exchange = exchange
        self._updater = updater
        self._arena = arena
        self._memory = arena.memory
        engine: Any = net.context.engine  # one for GPUs
        cupy = engine.xp
        self._cupy = cupy
        self.sources = [i for i, bottoms in enumerate(net.bottoms) if not bottoms]
        self._layers = [i for i, bottoms in enumerate(net.bottoms) if bottoms]
        self.replays = engine.replays
        self._replays = Sender(cupy, self.replays)
        self._extra = cupy.zeros(NUM_EXTRA, np.float32)  # what this rank tells all ranks
        self._sent = Sender(cupy, self._extra)
        self._box = Mailbox(cupy, 1 + NUM_EXTRA)  # the loss, and the sums of the extra values
        self._loss = self._box.sent[:1]
        self._loss_of_pass: Any = None
        updater.use_non_finite(arena.sent_extra[Extra.NON_FINITE : Extra.NON_FINITE + 1])

    def run(self, is_first: bool, is_last: bool) -> None:
        """Run one of an iteration's passes. The first one's losses are the first of a sum; the last one's backward is
        followed, and overlapped, by sums over all ranks, and these by the update. Collective, if it is the last.
        """
        if is_first:
            self._loss.fill(0)
        self.run_forward()
        if not is_last:
            self._net.pass_back()
        else:
            self._put_extra()
            if self._exchange.can_overlap:
                with self._exchange.overlapping():
                    self._net.pass_back()
            else:
                self._net.pass_back()
            self._update()
            self._box.sent[1:] = self._arena.sent_extra
        self.replays.fill(0)

    def set_replays(self, count: int) -> None:
        """Let random numbers of the next pass be those of `count` passes after the ones that it draws as it is."""
        self._replays.forget()
        self._replays.send(np.array([count % 2**64], np.uint64))

    def tell(self, extra: NDArray[np.float32]) -> None:
        """Let the last pass send what this rank has to say; whether its loss is finite it sees by itself."""
        self._sent.send(extra)

    def post(self) -> Any:
        """Have the results copied to the host; return the event behind that."""
        return self._box.post()

    def results(self) -> tuple[float, NDArray[np.float64]]:
        """Return the sum of this rank's losses and the sums of the extra values, once `post`'s event has happened."""
        values = self._box.take()
        return float(values[0]), values[1:]

    def run_forward(self) -> None:
        """Run the layers that have bottoms, and add their losses to the sum."""
        self._loss_of_pass = None
        for i in self._layers:
            self._net.pass_layer(i, self._take_loss)
        if self._loss_of_pass is not None:
            self._loss += self._loss_of_pass
        self._loss_of_pass = None

    def _take_loss(self, i: int) -> None:
        """Add layer i's losses to those of the pass, as Net.loss_of and Net.forward do."""
        loss = None
        for blob, weight in self._net.weighted_tops[i]:
            term = blob.read_data(self._memory).sum(dtype=np.float64) * weight
            loss = term if loss is None else loss + term
        if loss is not None:
            self._loss_of_pass = loss if self._loss_of_pass is None else self._loss_of_pass + loss

    def _put_extra(self) -> None:
        """Put before the diffs what this rank has to tell, and whether its loss is finite."""
        sent = self._arena.sent_extra
        sent[...] = self._extra
        sent[Extra.NON_FINITE : Extra.NON_FINITE + 1] = self._cupy.logical_not(
            self._cupy.isfinite(self._loss)
        )

    def _update(self) -> None:
        """Do what Iteration's _take does; what the host has to do for it is done."""
        sums = self._exchange.sums(self._exchange.iteration)
        buckets: Iterator[Sequence[Param]] = chain([next(sums)], sums)
        if self._updater.needs_all_gradients:
            for _ in buckets:
                pass
            buckets = iter([self._updater.params])
        self._updater.enqueue_control()
        for params in buckets:
            self._updater.update(params)
