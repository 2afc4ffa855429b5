"""Update rules (Caffe's solver types), one file each; importing this package registers them all."""

from __future__ import annotations

from dtrain.core.registry import import_members
from dtrain.core.solver.update_rules.rule import UPDATE_RULES as UPDATE_RULES
from dtrain.core.solver.update_rules.rule import UpdateRule as UpdateRule

import_members(__name__, list(__path__))
