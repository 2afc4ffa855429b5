"""What the processes of the benchmark of nets share: taking turns as they are told, and the batch that they train on.

A process reads lines and answers each by a line of JSON. A number: the seconds of so many iterations; another word:
what the process knows under that name; "peak_mb": the most memory that it had. Its first line says that it is ready.
On one thread seconds are those of the processor, since machines are busy; on several they are the clock's. A process
that computes on a GPU tells the seconds itself, by CUDA's events.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.proto import caffe_pb2

MOMENTUM, WEIGHT_DECAY, BASE_LR = 0.9, 0.004, 1e-4
NUM_LABELS = 10
NUM_THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
now: Callable[[], float] = time.process_time if NUM_THREADS == 1 else time.perf_counter


def made_up_batch(net: caffe_pb2.NetParameter) -> dict[str, NDArray[np.float32]]:
    """Return normal images and random labels in the shapes of the net's first layer, DummyData, by its tops."""
    data, random = net.layer[0], np.random.default_rng(0)
    images, labels = (tuple(shape.dim) for shape in data.dummy_data_param.shape)
    return {
        data.top[0]: random.standard_normal(images, np.float32),
        data.top[1]: random.integers(0, NUM_LABELS, labels).astype(np.float32),
    }


def take_turns(
    steps: Callable[[int], object],
    answers: Mapping[str, Callable[[], Any]],
    seconds_of: Callable[[Callable[[], object]], float] | None = None,
) -> None:
    """Answer lines until there are none. seconds_of: runs what it is given and says how long that took."""
    answers = {"peak_mb": _peak_mb, **answers}
    print(json.dumps("ready"), flush=True)
    for line in map(str.strip, sys.stdin):
        if line.isdecimal():
            answer: Any = (seconds_of or _seconds)(partial(steps, int(line)))
        else:
            answer = answers[line]()
        print(json.dumps(answer), flush=True)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds(run: Callable[[], object]) -> float:
    began = now()
    run()
    return now() - began
