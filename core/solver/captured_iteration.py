"""Iterations on a GPU: given to it in one launch each, as a CUDA graph, where nothing of them needs the host.

    warm-up, launched layer by layer ──> capture ──> replay, replay, …

Beside iteration.py, which runs what can't be captured. Each rank captures, or none does.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cupy.graph import CaptureFailed, Graph, Stage
from dtrain.core.errors import UserError
from dtrain.core.net.fixed_places import FixedPlaces, Watch, pin, put_back, settle
from dtrain.core.net.net import Net
from dtrain.core.solver.device_pass import DevicePass
from dtrain.core.solver.extra_values import NUM_EXTRA, Extra
from dtrain.core.solver.iteration import ITERATIONS, Callbacks, Iteration
from dtrain.core.solver.non_finite import NO_LAYER, find_non_finite
from dtrain.core.solver.requests import NUM_REQUESTS
from dtrain.dist.cupy_library import has_happened

log = logging.getLogger(__name__)

NUM_WARM_UP = (
    2  # iterations in which algorithms are chosen, kernels compiled and what is kept gets its memory
)

# Modules whose functions around layers give work to the GPU alone, or do what need not be done in a replay.
_CAPTURED_CALLBACKS = (
    "dtrain.core.net.loss_scaling",
    "dtrain.core.net.memory_sharing",
    "dtrain.core.solver.gradient_exchange",
)


@ITERATIONS.register("device")
class CapturedIteration(Iteration):
    """Computes iterations on a GPU, by graphs from the third on if it `captures` and nothing speaks against it.

    Layers without bottoms run before each replay, launched one by one: they may wait for data, and copy. What changes
    from one iteration to the next (rates, requests, random numbers) is read from device memory, which the host writes
    before the replay. Losses and the extra values come back at its end. Whether a loss is finite is seen on the GPU,
    where the update is then left out; the host acts on it afterwards.

    Where graphs are impossible or come to nothing, the log says why, once, and all goes on as without them.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._why_not = ""  # graphs are not made, or not any more
        self._is_checked = False
        self._posted: Any = None  # the event behind the results, where they are under way
        self._num_warm = 0
        self._pass: DevicePass | None = None
        self._stage: Stage | None = None
        self._graphs: dict[
            tuple[bool, bool], _CapturedPass
        ] = {}  # of the first pass or not, of the last or not
        self._watch = Watch()
        self._seed: int | None = None  # that the graphs draw with
        self._has_updated = False

    def forward_backward(self, iteration: int, callbacks: Callbacks) -> None:
        """Run the passes of `iteration`; in a graph, or on the way to one, also what `update` does on the GPU."""
        self._check(callbacks)
        if not self.captures or self._why_not:
            super().forward_backward(iteration, callbacks)
            return
        done = self._prepare(iteration)
        num_passes = self._param.iter_size
        for k in range(num_passes):
            self._run_pass(done, k == 0, k == num_passes - 1)
        self._num_warm += 1
        self._take_results(done)
        self._net.refresh()
        self._let_go_of_void()

    def update(self, iteration: int) -> None:
        """Do what is left to the host of an update that is done already, or all of one. Collective; raises so too."""
        if not self._has_updated:
            super().update(iteration)
            return
        self._has_updated = False
        if self._arena.extra[Extra.NON_FINITE]:
            self._leave_out(iter(()))
            return
        self.pace.compare(float(self._arena.extra[Extra.BUSY_S]), iteration)
        self._average.enter()

    # -- whether ---------------------------------------------------------------------------------------------

    def _check(self, callbacks: Callbacks) -> None:
        """Find out whether graphs can be made, and later whether the ones there are can be used."""
        if not self.captures or self._why_not:
            return
        why_not = self._find_why_not(callbacks)
        if not self._is_checked:
            self._is_checked = True
            self._agree(why_not)
        elif why_not:
            self._leave(why_not)
            self._let_go_of_void()

    def _find_why_not(self, callbacks: Callbacks) -> str:
        """Return what keeps iterations from being captured, "" if nothing does."""
        net, calls = self._net, self._net.callbacks
        around = (calls.before_forward, calls.after_forward, calls.before_backward, calls.after_backward)
        if callbacks or any(call.__module__ not in _CAPTURED_CALLBACKS for each in around for call in each):
            return "callbacks look at what layers have done"
        if self._is_checked:
            return ""
        if self._param.debug_info:
            return "debug_info looks at what layers have done"
        for i, layer in enumerate(net.layers):
            if net.bottoms[i] and layer.needs_host:
                return f'layer "{layer.name}" {layer.needs_host}'
        if self._param.dtrain_param.stale_gradients:
            return "stale_gradients keeps sums for the iteration after"
        communicator = self._communicator
        if communicator.world_size > 1 and not communicator.captures:
            return f"communicator {communicator.name} sums on the host"
        because: str = cast(Any, self._updater).not_captured_because
        return because

    def _agree(self, why_not: str) -> bool:
        """Return whether no rank has a reason against graphs; else say it, and make none. Collective."""
        texts = [text.decode() for text in self._communicator.all_gather_bytes(why_not.encode())]
        told = [(rank, text) for rank, text in enumerate(texts) if text]
        if told:
            rank, text = told[0]
            here = self._communicator.topology.describe(rank) + ": " if len(texts) > 1 else ""
            self._why_not = here + text
            log.info("Each layer is launched by itself: %s", self._why_not)
        return not told

    def _leave(self, why_not: str) -> None:
        """Use no graphs any more. Raises UserError on several ranks: NCCL wants all of them to do the same."""
        if self._communicator.world_size > 1 and self._graphs:
            raise UserError(
                f"all ranks must go on with the graphs of their iterations, got on rank {self._communicator.rank}: "
                f"{why_not}; train without graphs (--no-graph)"
            )
        self._why_not = why_not
        log.info("Each layer is launched by itself from now on: %s", why_not)

    def _let_go_of_void(self) -> None:
        """Give back what graphs take, if none are made any more, and the GPU is done with them."""
        if self._why_not:
            self.close()

    def close(self) -> None:
        """Give back what graphs take; the GPU must be done with them."""
        for layer in self._net.reading_layers:
            layer.feed.stages_ahead = True
        self._watch.end()
        self._graphs.clear()
        self._stage = None

    # -- how -------------------------------------------------------------------------------------------------

    def _prepare(self, iteration: int) -> DevicePass:
        """Tell the GPU what the update of `iteration` computes with, and clear the gradients."""
        updater: Any = self._updater
        if self._pass is None or self._stage is None:
            self._pass = DevicePass(self._net, self._exchange, updater, self._arena)
            self._stage = Stage(self._net.context.engine.xp)
            settle([param.blob for param in self._net.learnable_params], self._arena.memory)
        seed = self._net.context.random.seed
        if seed != self._seed:
            self._graphs.clear()
            self._seed = seed
        self._exchange.iteration, self._posted = iteration, None
        updater.send(iteration, self._communicator.world_size)
        return self._pass

    def _run_pass(self, work: DevicePass, is_first: bool, is_last: bool) -> None:
        """Run one pass, by a graph if there is one, else make it."""
        net, key = self._net, (is_first, is_last)
        captured = None if self._why_not else self._graphs.get(key)
        if captured is not None:
            captured.places.await_sources()
        sources = self._run_sources(work)
        if captured is None:
            pin(sources, self._arena.memory)
        if is_last:
            self._tell(work)
        if captured is not None:
            why_not = captured.places.find_reshaped()
            if why_not:
                self._leave(why_not)
                captured = None
        if is_first and captured is None:  # a graph knows that there are none
            self._arena.void_diffs()
        if self._why_not:
            work.run(*key)
        elif self._num_warm < NUM_WARM_UP:
            assert self._stage is not None
            with self._stage.entered():
                work.run(*key)
        elif captured is None:
            self._capture(work, key, sources)
        else:
            self._replay(captured, work, is_last)
        net.context.random.pass_index += 1

    def _replay(self, captured: _CapturedPass, work: DevicePass, is_last: bool) -> None:
        """Give the GPU the pass, and do what can wait until it has something to do."""
        self._net.activity.doing = "computing an iteration"
        captured.replay(work, self._net)
        if is_last:
            self._posted = work.post()
        captured.places.conclude()
        for layer in self._net.reading_layers:
            layer.feed.stage_ahead(layer.loader)

    def _run_sources(self, work: DevicePass) -> list[Blob]:
        """Run the layers without bottoms; return what they give."""
        blobs = []
        for i in work.sources:
            self._net.run_layer(i)
            blobs += self._net.tops[i]
        return blobs

    def _tell(self, work: DevicePass) -> None:
        """Let the pass to come send what this rank has to tell all ranks."""
        extra = np.zeros(NUM_EXTRA, np.float32)
        self.requests.send(extra[:NUM_REQUESTS])
        if self._communicator.world_size > 1:  # else nobody listens
            extra[Extra.BUSY_S] = self.pace.lap()
        work.tell(extra)

    def _capture(self, work: DevicePass, key: tuple[bool, bool], sources: Sequence[Blob]) -> None:
        """Make the graph of a pass and replay it; run the pass, and all to come, layer by layer if that fails."""
        assert self._stage is not None
        places, graphs, stage = FixedPlaces(self._net, sources, self._watch), [], self._stage
        why_not, random = "", self._net.context.random
        num_given = random.num_given
        try:
            places.record(lambda: graphs.append(stage.capture(lambda: work.run(*key))))
        except CaptureFailed as error:
            self._exchange.forget()
            why_not = f"it can't be captured ({error})"
        if not self._agree(why_not):
            if graphs:
                places.undo()
            work.run(*key)
            return
        if key[1]:
            log.info(
                "Iterations are replayed as CUDA graphs, which have %d MB of their own", stage.num_bytes >> 20
            )
        context = self._net.context
        self._graphs[key] = _CapturedPass(
            graphs[0],
            places,
            random.pass_index if random.num_given > num_given else None,
            context.engine.scratch(),
        )
        for layer in self._net.reading_layers:
            layer.feed.stages_ahead = False  # replays have it done behind the launch
        graphs[0].replay()

    def _take_results(self, work: DevicePass) -> None:
        """Wait for the GPU, and take in the loss and what all ranks have told."""
        event, cupy = self._posted or work.post(), self._net.context.engine.xp
        self._posted = None
        self._net.activity.doing = "waiting for the GPU to do an iteration"
        began = time.monotonic()
        self._communicator.wait_for(lambda: has_happened(cupy, event))
        self._communicator.waited_s += time.monotonic() - began
        loss, extra = work.results()
        self._arena.extra[...] = extra
        self._has_updated = True
        self._non_finite = "" if math.isfinite(loss) else self._look_closer(work)
        if not self._non_finite:
            self._losses.add(loss / self._param.iter_size)

    def _look_closer(self, work: DevicePass) -> str:
        """Return where the last pass has its first value that is not finite; it runs again, layer by layer."""
        net = self._net
        with put_back(net):
            net.context.random.pass_index -= 1
            try:
                work.run_forward()
            finally:
                net.context.random.pass_index += 1
            found = find_non_finite(net)
        if self._param.iter_size > 1 and found.startswith(NO_LAYER):
            return (
                "it is in one of the passes before the last, which graphs have run over; see with --no-graph"
            )
        return found


class _CapturedPass:
    """A graph, where its values are, and the number of the pass that it was captured in; None: it draws nothing.

    Whoever replays it lets `places` conclude.
    """

    def __init__(self, graph: Graph, places: FixedPlaces, pass_index: int | None, scratch: Any) -> None:
        self.places = places
        self._scratch = (
            scratch  # which others may have made larger, and so another, when the graph runs again
        )
        self._graph = graph
        self._pass_index = pass_index

    def replay(self, work: DevicePass, net: Net) -> None:
        """Run the pass again, with the sources that there are now."""
        self.places.prepare()
        if self._pass_index is not None:
            work.set_replays(net.context.random.pass_index - self._pass_index)
        self._graph.replay()
