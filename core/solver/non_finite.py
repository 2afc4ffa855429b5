"""A loss, a param that is infinite or not a number: which layer had the first such value, and what is done.

The rank whose loss it is leaves a count with the gradients (extra_values.py), so that all ranks act at the same
iteration, before the update.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.net.params import Param
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import EXIT_USER, AgreedFailure
from dtrain.dist.guard import merge_texts

log = logging.getLogger(__name__)

_FIX = (
    "lower base_lr, set clip_gradients or warmup_iter, or let such updates be left out: "
    "dtrain_param { on_non_finite_loss: SKIP }"
)

NO_LAYER = "no layer"


def find_non_finite(net: Net) -> str:
    """Return in words where the first value is, in the order of forward, that is infinite or not a number."""
    kept = "all before it"
    for node, layer, names, tops in zip(net.graph.nodes, net.layers, net.top_names, net.tops, strict=True):
        for blob in layer.blobs:
            if not is_finite(blob.read_data()):
                return f"{node.title}: {_count(blob.read_data())} in its params"
        for name, blob in zip(names, tops, strict=True):
            if blob.data_tensor.storage.given_back:
                kept = "all before it that is kept"  # --keep-blobs keeps all
            elif not is_finite(blob.read_data()):
                return f'{node.title}: {_count(blob.read_data())} in its top "{name}", {kept} is finite'
    return f"{NO_LAYER}: the sum of the losses overflows"


def is_finite(values: NDArray[Any]) -> bool:
    """Return whether no value is infinite or not a number."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(values)):
            return True
    return bool(np.isfinite(values).all())  # the sum alone may have overflowed


def agree_on_non_finite(iteration: int, found: str, communicator: Communicator) -> list[str]:
    """Return one sentence for each place that ranks have `found` ("": none). Collective."""
    texts = [text.decode() for text in communicator.all_gather_bytes(found.encode())]
    told = {
        rank: f"iteration {iteration}: loss must be finite; {text}" for rank, text in enumerate(texts) if text
    }
    return merge_texts(communicator.topology, told)


def stop_for(problems: Sequence[str], communicator: Communicator) -> None:
    """Raise the end of the run: UserError on a job of one rank, AgreedFailure on one of several."""
    lines = [f"{problem}; {_FIX}" for problem in problems]
    if communicator.world_size == 1:
        raise UserError(*lines)
    raise AgreedFailure(*lines, exit_code=EXIT_USER)


def check_params_finite(params: Sequence[Param], iteration: int) -> None:
    """Raise UserError if a param is infinite or not a number: no snapshot of it shall take a good one's place."""
    for param in params:
        values = param.blob.read_data()
        if not is_finite(values):
            raise UserError(
                f"snapshot at iteration {iteration}: params must be finite, got {_count(values)} in param "
                f'{param.title} of layer "{param.layer_name}"; {_FIX}'
            )


def _count(values: NDArray[Any]) -> str:
    num = values.size - int(np.isfinite(values).sum())
    return f"{num} of {values.size} values {'is' if num == 1 else 'are'} infinite or NaN"
