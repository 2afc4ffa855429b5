"""Train a net on the ranks of this job and print what its guards cost, as one line of JSON (rank 0).

guards.py FOLDER lenet|cifar10_quick BATCH_SIZE_PER_RANK NUM_ITERATIONS     (under mpirun)

Each rank has its supervisor, as under `mpirun dtrain`. In parts, since the whole is less than the noise of an
iteration: the supervisor's processor time, the setting of Activity for it (how often, times what one takes), and the
comparison of params (what one takes, over the iterations between two). Shares are those of an iteration's time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from simulate import make_solver, write_files

from dtrain.core.solver.param_guard import check_params_equal
from dtrain.dist.activity import Activity
from dtrain.dist.create import create_communicator
from dtrain.dist.supervisor import Watched, announce_exit, supervise, watched

WARM_UP_ITERATIONS = 20
NUM_SETTINGS, NUM_COMPARISONS = 20_000, 50


def supervisor_cpu_s(watcher: Watched) -> float:
    """Return the processor time that the supervisor has had so far."""
    return int(Path(f"/proc/{watcher.supervisor_pid}/schedstat").read_text().split()[0]) / 1e9


def seconds_of_a_setting(activity: Activity) -> float:
    """Return what it takes to set the activity of a watched rank."""
    texts = [f'computing layer "layer{k}"' for k in range(20)]
    began = time.perf_counter()
    for k in range(NUM_SETTINGS):
        activity.doing = texts[k % 20]
    return (time.perf_counter() - began) / NUM_SETTINGS


def main() -> None:
    """Train and print."""
    supervise(os.environ)
    watcher = watched()
    assert watcher is not None
    folder, name = Path(sys.argv[1]), sys.argv[2]
    batch_size, num_iterations = map(int, sys.argv[3:])
    communicator = create_communicator(None, os.environ)
    communicator.activity.show_in(watcher.mirror)
    solver = make_solver(write_files(folder, name, batch_size, communicator), communicator)
    interval = solver.param.dtrain_param.check_interval
    solver.step(WARM_UP_ITERATIONS)
    communicator.barrier()
    settings, cpu_s = watcher.mirror.read().changes, supervisor_cpu_s(watcher)
    began = time.perf_counter()
    solver.step(num_iterations)
    communicator.barrier()
    iteration_s = (time.perf_counter() - began) / num_iterations
    settings = (watcher.mirror.read().changes - settings) / num_iterations
    watch_s = (supervisor_cpu_s(watcher) - cpu_s) / num_iterations
    setting_s = seconds_of_a_setting(communicator.activity)
    communicator.barrier()
    began = time.perf_counter()
    for _ in range(NUM_COMPARISONS):
        check_params_equal(solver.net.learnable_params, solver.iter, communicator)
    comparison_s = (time.perf_counter() - began) / NUM_COMPARISONS
    solver.close()
    if communicator.rank == 0:
        shares = {
            "watch": watch_s / iteration_s,
            "settings": settings * setting_s / iteration_s,
            "comparison": comparison_s / interval / iteration_s,
        }
        print(
            json.dumps({"iteration_ms": 1000 * iteration_s, **shares, "all": sum(shares.values())}),
            flush=True,
        )
    communicator.close()
    announce_exit(0)


if __name__ == "__main__":
    main()
