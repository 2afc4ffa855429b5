"""pycaffe's interface: nets, solvers and settings under the names that Caffe's Python users know.

`import dtrain as caffe` gives these. They wrap the core's Net and Solver; errors are Python exceptions, nothing ends
the interpreter. Follows caffe's pycaffe.py and _caffe.cpp.
"""

from __future__ import annotations

from dtrain.core.pycaffe.nccl import NCCL as NCCL
from dtrain.core.pycaffe.net import Net as Net
from dtrain.core.pycaffe.settings import TEST as TEST
from dtrain.core.pycaffe.settings import TRAIN as TRAIN
from dtrain.core.pycaffe.settings import has_nccl as has_nccl
from dtrain.core.pycaffe.settings import layer_type_list as layer_type_list
from dtrain.core.pycaffe.settings import set_device as set_device
from dtrain.core.pycaffe.settings import set_mode_cpu as set_mode_cpu
from dtrain.core.pycaffe.settings import set_mode_gpu as set_mode_gpu
from dtrain.core.pycaffe.settings import set_multiprocess as set_multiprocess
from dtrain.core.pycaffe.settings import set_random_seed as set_random_seed
from dtrain.core.pycaffe.settings import set_solver_count as set_solver_count
from dtrain.core.pycaffe.settings import set_solver_rank as set_solver_rank
from dtrain.core.pycaffe.settings import solver_count as solver_count
from dtrain.core.pycaffe.settings import solver_rank as solver_rank
from dtrain.core.pycaffe.settings import solver_type_list as solver_type_list
from dtrain.core.pycaffe.solver import AdaDeltaSolver as AdaDeltaSolver
from dtrain.core.pycaffe.solver import AdaGradSolver as AdaGradSolver
from dtrain.core.pycaffe.solver import AdamSolver as AdamSolver
from dtrain.core.pycaffe.solver import NesterovSolver as NesterovSolver
from dtrain.core.pycaffe.solver import RMSPropSolver as RMSPropSolver
from dtrain.core.pycaffe.solver import SGDSolver as SGDSolver
from dtrain.core.pycaffe.solver import Solver as Solver
from dtrain.core.pycaffe.solver import get_solver as get_solver
from dtrain.core.pycaffe.timer import Timer as Timer
