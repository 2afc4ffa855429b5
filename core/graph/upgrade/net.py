"""The upgrade of a net: all steps that it needs, in Caffe's order.

Follows caffe's upgrade_proto.cpp (UpgradeNetAsNeeded).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dtrain.core.graph.upgrade.batch_norm import BATCH_NORM
from dtrain.core.graph.upgrade.inputs import INPUTS
from dtrain.core.graph.upgrade.step import NetDocument
from dtrain.core.graph.upgrade.transforms import TRANSFORMS, warn_of_ignored
from dtrain.core.graph.upgrade.v0 import V0_TO_V1
from dtrain.core.graph.upgrade.v1 import V1_TO_TODAY

log = logging.getLogger(__name__)

STEPS = (V0_TO_V1, TRANSFORMS, V1_TO_TODAY, INPUTS, BATCH_NORM)


def upgrade_net(document: NetDocument, report: Callable[[str], None] = log.info) -> NetDocument:
    """Return the NetParameter in `document` with today's fields; the message itself may be changed.

    report: gets a line for each kind of old fields.
    Raises UserError for what is old and can't be upgraded.
    """
    warn_of_ignored(document)
    for step in STEPS:
        if step.is_needed(document.message):
            document = step.apply(document)
            report(f"{document.path}: {step.words}")
    return document
