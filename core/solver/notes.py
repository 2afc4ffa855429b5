"""What the log says, once, of fields that Caffe needs and that a run here has no use for."""

from __future__ import annotations

import logging

from dtrain.core.solver.recipe import Recipe

log = logging.getLogger(__name__)

_NOTES = {
    "layer_wise_reduce": "gradients are summed over the ranks in one go, those of shared params included",
    "device_id": "the flags of the command line choose where to compute",
}


def log_notes(recipe: Recipe) -> None:
    """Log a line for each field of the solver file that is accepted and not looked at."""
    for field, instead in _NOTES.items():
        if recipe.solver.HasField(field):
            log.info("%s: %s is not looked at: %s", recipe.document.where(field), field, instead)


def log_notes_of_scripts(recipe: Recipe) -> None:
    """Log a line for what the solver file asks for and the solver of a script does not do by itself."""
    if recipe.solver.dtrain_param.recompute:
        log.info(
            "%s: recompute has no effect yet: nets of scripts keep all blobs; "
            "dtrain.core.net.memory_sharing.share_memory([solver.core.net], recomputes=True) lets this one recompute",
            recipe.document.where("dtrain_param"),
        )
