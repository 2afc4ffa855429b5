"""A fault: what befalls which rank of a job, where and when; drawn from a seed, so that each can be had again.

test_faults.py draws faults and judges what becomes of the job; saboteur.py, inside the rank, lets them happen.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from random import Random

MAX_ITER, SNAPSHOT_EVERY, TEST_EVERY = 16, 4, 5

# Where in an iteration a rank is hit. "any" is a moment of its own thread, whatever the others do just then.
PLACES = ("start", "data", "forward", "backward", "all_reduce", "test", "snapshot")

# What befalls a rank, and where it can.
KINDS: dict[str, tuple[str, ...]] = {
    "exception": (*PLACES, "python"),  # a bug of dtrain's; "python": one of a user's own layer
    "exit": (*PLACES, "python"),
    "kill": (*PLACES, "any"),
    "stop": (*PLACES, "any"),
    "memory": PLACES,
    "disk": ("snapshot",),
    "database": ("launch",),
    "net": ("launch",),
    "world size": ("launch",),
    "SIGTERM": (*PLACES[1:], "any"),
    "SIGINT": (*PLACES[1:], "any"),
    "SIGUSR1": (*PLACES[1:], "any"),
}
REQUESTS = ("SIGTERM", "SIGINT", "SIGUSR1")  # which end the job in order

# The types of the layers that are hit in forward, backward and test.
LAYER_TYPES = ("Convolution", "Dropout", "ReLU", "InnerProduct", "SoftmaxWithLoss")

# A snapshot is three files written, then three renamed: one moment before each.
NUM_SNAPSHOT_STEPS = 6

ENVIRONMENT = "DTRAIN_TEST_FAULT"  # tells a rank what is to befall it; not set for others


@dataclass(frozen=True)
class Fault:
    """What befalls `rank` of `num_ranks` once it is at `place` of `iteration`.

    layer_type: which layer's code is hit. step: which step of a snapshot. delay: for "any", how far the iteration
    has gone, in units of what an iteration takes. hits_supervisor: whether a signal goes to the process that watches
    the rank's.
    """

    kind: str
    place: str
    num_ranks: int
    rank: int
    iteration: int = 0
    layer_type: str = LAYER_TYPES[0]
    step: int = 0
    delay: float = 0.0
    hits_supervisor: bool = False

    def __str__(self) -> str:
        """Return ``kill in backward (Convolution) of iteration 7, rank 1 of 3``."""
        details = {
            "forward": f" ({self.layer_type})",
            "backward": f" ({self.layer_type})",
            "test": f" ({self.layer_type})",
            "snapshot": f" (step {self.step})",
        }
        when = "" if self.place in ("launch", "start") else f" of iteration {self.iteration}"
        whose = "'s supervisor" if self.hits_supervisor else ""
        where = f"{self.place}{details.get(self.place, '')}{when}"
        return f"{self.kind} in {where}, rank {self.rank}{whose} of {self.num_ranks}"

    def to_text(self) -> str:
        """Return the fault as text for ENVIRONMENT."""
        return json.dumps(asdict(self))


def from_text(text: str) -> Fault:
    """Return the fault that to_text wrote."""
    return Fault(**json.loads(text))


def draw_fault(seed: int, index: int) -> Fault:
    """Return fault number `index` of `seed`; as many in a row as there are kinds are one of each."""
    order = list(KINDS)
    Random(f"{seed} {index // len(order)}").shuffle(order)
    kind = order[index % len(order)]
    random = Random(f"{seed} {index} {kind}")
    place = random.choice(KINDS[kind])
    num_ranks = random.choice((2, 3, 4))
    rank = random.randrange(num_ranks)
    last = (
        MAX_ITER - 2 if kind in REQUESTS else MAX_ITER - 1
    )  # a request takes up to an iteration to be heard
    iteration = random.randint(1, last)
    if place == "test":
        iteration = random.randrange(0, MAX_ITER, TEST_EVERY)
    elif place == "snapshot":
        iteration, rank = random.randrange(SNAPSHOT_EVERY, MAX_ITER, SNAPSHOT_EVERY), 0  # who writes them
    elif kind == "net":
        rank = max(rank, 1)  # rank 0 is who the others are compared with
    return Fault(
        kind,
        place,
        num_ranks,
        rank,
        iteration,
        random.choice(LAYER_TYPES),
        random.randrange(NUM_SNAPSHOT_STEPS),
        random.random(),
        hits_supervisor=kind in REQUESTS and random.random() < 0.5,
    )
