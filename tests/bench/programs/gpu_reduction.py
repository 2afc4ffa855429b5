"""The floor of an all-reduce on GPUs: gradients summed over one rank by NCCL, as JSON.

gpu_reduction.py MEGABYTES
"""

from __future__ import annotations

import json
import statistics
import sys

import numpy as np

from dtrain.dist.cupy_library import load_cupy
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.single import SingleCommunicator

NUM_TO_WARM_UP, NUM_RUNS = 3, 20


def main() -> None:
    """Sum and print."""
    num_bytes = int(sys.argv[1]) << 20
    communicator = NcclCommunicator(SingleCommunicator())
    array = communicator.allocate_on_device(num_bytes // 4, np.dtype(np.float32))
    cuda = load_cupy().cuda
    times_ms = []
    for k in range(NUM_TO_WARM_UP + NUM_RUNS):
        began, ended = cuda.Event(), cuda.Event()
        began.record()
        communicator.start_all_reduce(array).wait()  # the stream's wait: the host's would be measured too
        ended.record()
        ended.synchronize()
        if k >= NUM_TO_WARM_UP:
            times_ms.append(cuda.get_elapsed_time(began, ended))
    ms = statistics.median(times_ms)
    print(json.dumps({"ms": ms, "tb_per_s": num_bytes / ms / 1e9}))
    communicator.close()


if __name__ == "__main__":
    main()
