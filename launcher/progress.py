"""The progress line that rank 0 shows on a terminal while it trains.

Stands beside the flow prototxt → graph → net → solver → communicator → snapshot: an observer of the solver.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dtrain.core.net.scores import Score
from dtrain.core.solver.solver import Solver
from dtrain.launcher.console import Console

_REFRESH_S = 0.1
_WINDOW = 50  # samples, so speeds are means over the last 5 s or more


@dataclass(frozen=True)
class Sample:
    """What a run had done at one moment: seconds on a steady clock, updates, seconds waited for data."""

    time_s: float
    iteration: int
    waited_s: float


@dataclass(frozen=True)
class Standing:
    """What the progress line says. images_per_iteration counts all ranks; score is the last test's, or "".

    epoch: how many epochs have been read, with the part of the one under way; None where nothing is read.
    """

    iteration: int
    max_iter: int
    loss: float
    learning_rate: float
    images_per_iteration: int
    score: str = ""
    epoch: float | None = None


def progress_line(standing: Standing, first: Sample, last: Sample) -> str:
    """Return the line: the most wanted comes first, since a narrow terminal cuts the end.

    Arguments:
        standing: where the run is.
        first, last: the ends of the time over which speeds and the share of waiting are means.
    """
    parts = [
        f"iteration {standing.iteration}/{standing.max_iter}",
        f"epoch {standing.epoch:.1f}" if standing.epoch is not None else "",
        f"loss {standing.loss:.4g}",
        standing.score,
        *_speeds(standing, first, last),
        f"lr {standing.learning_rate:.4g}",
    ]
    return "  ".join(part for part in parts if part)


def _speeds(standing: Standing, first: Sample, last: Sample) -> list[str]:
    duration_s = last.time_s - first.time_s
    if duration_s <= 0 or last.iteration <= first.iteration:
        return []
    rate = (last.iteration - first.iteration) / duration_s
    left_s = (standing.max_iter - standing.iteration) / rate
    images = f"{rate * standing.images_per_iteration:,.0f} images/s" if standing.images_per_iteration else ""
    waiting = (last.waited_s - first.waited_s) / duration_s
    return [f"ETA {format_duration(left_s)}", f"{rate:.1f} iter/s", images, f"data wait {waiting:.1%}"]


def format_duration(seconds: float) -> str:
    """Return seconds as 0:07, 12:34 or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def best_score(scores: Sequence[Score]) -> str:
    """Return the score to show of a test: the first accuracy, or else the first of all."""
    named = [score for score in scores if "accuracy" in score.name.lower()] or list(scores)
    return f"{named[0].name} {named[0].value:.4f}" if named else ""


class Speedometer:
    """Remember samples of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=_WINDOW)

    def is_due(self, time_s: float) -> bool:
        """Return whether the last sample is old enough for another."""
        return not self._samples or time_s - self._samples[-1].time_s >= _REFRESH_S

    def add(self, sample: Sample) -> None:
        """Remember a sample."""
        self._samples.append(sample)

    def ends(self) -> tuple[Sample, Sample]:
        """Return the oldest sample still remembered and the newest."""
        return self._samples[0], self._samples[-1]


class ProgressObserver:
    """Keep a console's status line up to date while a solver trains.

    Arguments:
        console: where to; nothing is done if it shows no status line.
        clock: returns seconds on a steady clock.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._speedometer = Speedometer()
        self._score = ""

    def on_start(self, solver: Solver) -> None:
        """Begin to measure."""
        self._speedometer.add(self._sample(solver, self._clock()))

    def on_epoch(self, solver: Solver, epoch: int) -> None:
        """Do nothing: the line shows the epoch all the time."""

    def on_iteration(self, solver: Solver) -> None:
        """Show where the solver is, if the line is older than a tenth of a second."""
        now = self._clock()
        if not self._console.shows_status or not self._speedometer.is_due(now):
            return
        self._speedometer.add(self._sample(solver, now))
        self._console.set_status(progress_line(self._standing(solver), *self._speedometer.ends()))

    def on_test(self, solver: Solver, net_index: int, scores: Sequence[Score]) -> None:
        """Remember the score of the first test net."""
        if net_index == 0:
            self._score = best_score(scores)

    def on_snapshot(self, solver: Solver, path: str) -> None:
        """Do nothing: the log names the files."""

    def on_end(self, solver: Solver) -> None:
        """Take the status line away."""
        self._console.clear_status()

    def _sample(self, solver: Solver, now: float) -> Sample:
        waited_s = sum(layer.loader.waited_s for layer in solver.net.reading_layers)
        return Sample(now, solver.iter, waited_s)

    def _standing(self, solver: Solver) -> Standing:
        layers = solver.net.reading_layers
        images_per_pass = max((layer.records_per_pass for layer in layers), default=0)
        return Standing(
            iteration=solver.iter,
            max_iter=solver.max_iter,
            loss=solver.smoothed_loss,
            learning_rate=solver.learning_rate,
            images_per_iteration=images_per_pass * solver.param.iter_size,
            score=self._score,
            epoch=layers[0].position / layers[0].num_records if layers else None,
        )
