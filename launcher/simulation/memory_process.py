"""What a process takes of memory by itself: Python, libraries, an engine that has begun to work.

Measured on a process of its own, since one that has done other things can't say it of itself.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

_STATUS = Path("/proc/self/status")
_TIMEOUT_S = 120
_KB = 1024
_OF_LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_", "HYDRA_", "HYDI_", "SLURM_")

# Nets of the usual operations, so small that what they take is the libraries' own: their code, tables and threads.
_FILLER = 'weight_filler { type: "xavier" }'
_TWO_OUTPUTS = f"inner_product_param {{ num_output: 2 {_FILLER} }}"
_DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "none" batch_size: 2 } }
"""
_CONVOLUTIONS = f"""
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 16 kernel_size: 3 {_FILLER} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "pool" top: "conv2"
  convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 {_FILLER} }} }}
"""
_PRODUCTS = f"""
layer {{ name: "ip" type: "InnerProduct" bottom: "BOTTOM" top: "ip" {_TWO_OUTPUTS} }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip" top: "ip2" {_TWO_OUTPUTS} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
_PROGRAM = """
import json, os, sys, tempfile
from dtrain.launcher.main import main
from dtrain.launcher.simulation.memory_process import peak_bytes
net_text, *options = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    net, solver = (os.path.join(folder, name) for name in ("net.prototxt", "solver.prototxt"))
    with open(net, "w") as file:
        file.write(net_text)
    with open(solver, "w") as file:
        file.write(f'net: "{net}" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_after_train: false')
    code = main(["train", "--solver", solver, "--synthetic", "16x9x9", *options])
print(json.dumps(peak_bytes()))
sys.exit(code)
"""


def peak_bytes() -> int:
    """Return the most memory that this process has had so far.

    Where Linux says it itself, that is right also for a process whose parent had more.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * _KB for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KB


@cache
def measure_process(engine: str, precision: str = "FLOAT32", convolves: bool = True) -> int:
    """Return the bytes of a process in which `dtrain train` trains next to nothing; it takes about a second.

    convolves: whether with convolutions, the code of which is large. Raises RuntimeError if it fails.
    """
    top, layers = ("conv2", _CONVOLUTIONS) if convolves else ("data", "")
    net = _DATA + layers + _PRODUCTS.replace("BOTTOM", top)
    command = [sys.executable, "-c", _PROGRAM, net, "--engine", engine, "--precision", precision.lower()]
    # It is no rank, though its parent may be one.
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OF_LAUNCHERS)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"a process that measures its own memory must succeed:\n{done.stderr}")
    return int(json.loads(done.stdout.splitlines()[-1]))
