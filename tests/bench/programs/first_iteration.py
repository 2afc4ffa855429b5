"""Run `dtrain` on LeNet for one iteration, to see how long starting takes.

first_iteration.py LMDB
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lenet import write_solver

from dtrain.launcher.main import main

if __name__ == "__main__":
    folder = Path(sys.argv[1]).parent
    solver = write_solver(sys.argv[1], 64, folder)
    solver.write_text(
        solver.read_text().replace("max_iter: 10000", "max_iter: 1") + "\nsnapshot_after_train: false\n"
    )
    sys.exit(main([os.fspath(solver)]))
