"""Train a net of configs/ on a played GPU that does nothing, and print what the host does for a replayed iteration.

OMP_NUM_THREADS=1 captured.py NAME NUM_ITERATIONS [--profile]

As JSON: iteration_us, the median of this thread's own time for an iteration as `dtrain train` runs it; idle_us, the
part of it in which the GPU has nothing to do, between the end of a graph and the launch of the next; least_us and
least_idle_us of the fastest; num_storages; calls: what cupy is asked for in an iteration, by name. All of that
returns at once, as played arrays are no measure of cupy's; on a GPU it comes on top. Nets are narrow; a batch is one
image, read from an LMDB and fed by pinned memory as ever.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from made_up import CONFIGS, IMAGES, make_solver, narrowed

from dtrain.core.engines import create_engine
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.net.fixed_places import storages_of
from dtrain.core.prototxt import write_text
from dtrain.core.solver.solver import Solver
from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.proto import caffe_pb2

sys.path.insert(0, os.fspath(CONFIGS.parent))

from tests.played.cuda import Runtime
from tests.played.cudnn import play_cudnn
from tests.played.cupy import DeviceArray
from tests.played.graphs import Event, Graph, Stream
from tests.played.kernels import PlayedRawKernel

NUM_CHANNELS, NUM_RECORDS, NUM_TO_WARM_UP = 8, 8, 6
MOST_S = 0.1


def reading_text(name: str, database: Path) -> str:
    """Return the net of configs/`name`, narrow, one image a batch, on a database that is made here."""
    path = CONFIGS / name / "train_val.prototxt"
    net = text_format.Parse(path.read_text(encoding="utf-8"), caffe_pb2.NetParameter())
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source, layer.data_param.batch_size = os.fspath(database), 1
            layer.transform_param.ClearField("mean_file")
            shape = IMAGES.get(name) or (3, *(layer.transform_param.crop_size + 2,) * 2)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (NUM_RECORDS, *shape), np.uint8)
    write_lmdb(database, ((b"%08d" % i, encode_datum(image, i)) for i, image in enumerate(images)))
    return narrowed(write_text(net), NUM_CHANNELS)


class Clock:
    """Takes the time of this thread between graphs: begin is called at each launch, end when the host has seen its
    end.
    """

    def __init__(self, layers: Sequence[ReadingLayer]) -> None:
        self.uncounted_ns = 0
        self.idle_us: list[float] = []
        self._layers = layers
        self._ended_ns = 0

    def begin(self) -> None:
        """Enter the time since `end`; give the reader, uncounted, the time for the next batch that a GPU would."""
        began_ns = time.thread_time_ns()
        self.idle_us.append((began_ns - self._ended_ns) / 1000)
        until = time.monotonic() + MOST_S
        for layer in self._layers:
            prefetcher: Any = layer.loader._prefetcher
            while not prefetcher.num_ready and time.monotonic() < until:
                time.sleep(0)
        self.uncounted_ns += time.thread_time_ns() - began_ns

    def end(self) -> int:
        """Return CUDA's success."""
        self._ended_ns = time.thread_time_ns()
        return 0


def do_nothing_but_count(calls: Counter[str], clock: Clock) -> None:
    """Let the played GPU do nothing from now on but be asked."""

    def counted(owner: Any, name: str, what: str, result: Callable[..., Any] = lambda *_, **__: None) -> None:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[what] += 1
            return result(*args, **kwargs)

        setattr(owner, name, call)

    counted(PlayedRawKernel, "__call__", "kernels")
    counted(Graph, "launch", "graphs", lambda *_: clock.begin())
    counted(Event, "__init__", "events made", lambda event, *_, **__: setattr(event, "ptr", 0))
    counted(Event, "record", "events recorded")
    counted(Event, "synchronize", "events waited for")
    counted(Stream, "wait_event", "waits of streams")
    counted(Runtime, "eventQuery", "queries", lambda *_: clock.end())
    Event.done = property(lambda event: True)  # type: ignore[assignment,method-assign]
    counted(DeviceArray, "get", "copies to the host")
    counted(DeviceArray, "set", "copies to the device")
    counted(DeviceArray, "__setitem__", "copies on the device")
    for name in ("shape", "dtype", "size"):  # of whatever a played array shows, quickly
        setattr(DeviceArray, name, property(attrgetter(f"_values.{name}")))


def thread_us(solver: Solver, num_times: int, clock: Clock) -> list[float]:
    """Return the us of each of so many iterations."""
    found: list[float] = []
    iterate = solver._iterate

    def timed() -> None:
        began = time.thread_time_ns() - clock.uncounted_ns
        iterate()
        found.append((time.thread_time_ns() - clock.uncounted_ns - began) / 1000)

    solver._iterate = timed  # type: ignore[method-assign]
    solver.step(num_times)
    return found


def main() -> None:
    """Print the times."""
    name, num_iterations = sys.argv[1], int(sys.argv[2])
    play_cudnn(pytest.MonkeyPatch())
    calls: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        solver = make_solver(reading_text(name, Path(folder, "lmdb")), create_engine("cudnn"))
        solver.capture()
        solver.step(NUM_TO_WARM_UP)
        graphs = solver.iteration._graphs  # type: ignore[attr-defined]
        assert graphs, "no graph was made"
        clock = Clock(solver.net.reading_layers)
        do_nothing_but_count(calls, clock)
        if "--profile" in sys.argv:
            profile = cProfile.Profile(time.thread_time)
            profile.runcall(solver.step, num_iterations)
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        calls.clear()
        clock.idle_us.clear()
        found = thread_us(solver, num_iterations, clock)
        row = {
            "iteration_us": statistics.median(found),
            "idle_us": statistics.median(clock.idle_us[1:]),
            "least_us": min(found),
            "least_idle_us": min(clock.idle_us[1:]),
            "num_storages": len(storages_of(solver.net)),
            "calls": {what: number / num_iterations for what, number in calls.items()},
        }
        print(json.dumps(row))
        solver.close()


if __name__ == "__main__":
    main()
