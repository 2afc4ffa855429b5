"""How much of the reduction is hidden behind backward, on two hosts with a slow link between them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from measuring import PROGRAMS

from dtrain.launcher.mpirun import mpirun_environment

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # the hosts are those of the tests

from tests.hosts.two_hosts import TwoHosts, why_not  # noqa: E402

RATE = "2gbit"
NUM_TRIALS = 5
NETS = {"caffenet": "CaffeNet", "resnet50": "ResNet-50"}
MODES = {"sleep": "cores free (a GPU computes)", "busy": "a core of each rank busy"}
COMPUTE_SHARES = "1,2"


def bench_overlap(folder: Path) -> None:
    """Two hosts of one rank each on a link of 2 Gbit/s: compute alone, reduction alone, both."""
    reason = why_not()
    if reason:
        print(f"overlap: left out; {reason}")
        return
    (folder / "hosts").mkdir()
    with TwoHosts(folder / "hosts") as hosts:
        hosts.slow(RATE)
        for net, title in NETS.items():
            for mode, words in MODES.items():
                print(f"{title}, 1 + 1 ranks on {RATE}, {words}:")
                _print(_run(hosts, net, mode))


def _run(hosts: TwoHosts, net: str, mode: str) -> dict[str, object]:
    program = [sys.executable, str(PROGRAMS / "overlap.py"), net, mode, COMPUTE_SHARES, str(NUM_TRIALS)]
    env = mpirun_environment({**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}, 2)
    done = subprocess.run(hosts.mpirun((1, 1), program), env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"overlap.py failed:\n{done.stdout}{done.stderr}")
    result: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def hidden_share(
    compute_s: float, reduction_s: float, both_s: float, schedule: Sequence[tuple[float, float]]
) -> float:
    """Return the time that was saved over the time that can be: with a link that is never idle while a bucket waits.

    schedule: for each bucket the share of compute after which it is ready, and its share of the reduction.
    """
    end_s = 0.0
    for ready, size in schedule:
        end_s = max(end_s, ready * compute_s) + size * reduction_s
    ideal_s = max(compute_s, end_s)
    return (compute_s + reduction_s - both_s) / (compute_s + reduction_s - ideal_s)


def _print(result: dict[str, object]) -> None:
    schedule: list[tuple[float, float]] = result["schedule"]  # type: ignore[assignment]
    rows = defaultdict(list)
    for share, *seconds in result["trials"]:  # type: ignore[attr-defined]
        rows[share].append(seconds)
    for trials in rows.values():
        hidden = [hidden_share(trial[0], trial[1], trial[2], schedule) for trial in trials]
        compute, reduction, both = (statistics.median(column) * 1000 for column in zip(*trials, strict=True))
        print(
            f"    compute {compute:.0f} ms, reduction {reduction:.0f} ms ({result['communicator']}), "
            f"one after the other {compute + reduction:.0f} ms, together {both:.0f} ms; "
            f"hidden {statistics.median(hidden):.0%} of what can be ({min(hidden):.0%} to {max(hidden):.0%})"
        )
