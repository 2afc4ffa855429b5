"""How much the learning rate grows with the records that an update takes, when many ranks share the work.

The updater multiplies by the factor what the policy says (lr_policies.py). It follows from the files, the flags and
the ranks of the run that goes on, and is in no snapshot: resumed on twice as many ranks with twice the records
an update, a run goes on with twice the rate.
"""

from __future__ import annotations

import logging
import math

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

_Extra = caffe_pb2.DtrainSolverParameter


def rate_factor(solver: caffe_pb2.SolverParameter, net: Net) -> float:
    """Return, and log, by what the learning rate of `net`'s run is multiplied: 1, k (LINEAR) or √k (SQRT).

    k = records of an update, over all ranks / lr_batch_size, by default the number of ranks. The records are those of
    the first layer that reads some. Linear: Goyal et al., 2017; by the root: Krizhevsky, 2014.
    Raises UserError for an lr_batch_size where no layer reads records.
    """
    extra = solver.dtrain_param
    if extra.lr_scaling == _Extra.NONE:
        return 1.0
    layers, world_size = net.reading_layers, net.context.shard.world_size
    if extra.HasField("lr_batch_size"):
        if not layers:
            raise UserError(
                "dtrain_param.lr_batch_size must be left out where no layer of the net reads records, "
                f"got {extra.lr_batch_size}"
            )
        taken, meant = layers[0].records_per_pass * solver.iter_size, int(extra.lr_batch_size)
        words = f"an update takes {taken} records, base_lr is for {meant}"
    else:
        taken, meant = world_size, 1
        words = f"an update takes the records of {world_size} ranks, base_lr is for those of 1"
    factor = taken / meant
    if extra.lr_scaling == _Extra.SQRT:
        factor = math.sqrt(factor)
    name = _Extra.LearningRateScaling.Name(extra.lr_scaling).lower()
    log.info("Learning rate times %g (%s): %s", factor, name, words)
    return factor
