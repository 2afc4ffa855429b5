"""Upgrades of old fields to today's, in memory, right after reading.

prototxt ──> upgrade ──> graph

Follows caffe's upgrade_proto.cpp. `net` runs the steps in Caffe's order: `padding` and `v0` (layers of 2013),
`transforms` (transformation fields of data layers), `v1` (layers of 2014), `inputs` (the net's own inputs),
`batch_norm`; `solver` is for solver files. `lines` keeps each element's line of the file, for later errors.
"""

from __future__ import annotations

from dtrain.core.graph.upgrade.net import upgrade_net as upgrade_net
from dtrain.core.graph.upgrade.solver import SolverDocument as SolverDocument
from dtrain.core.graph.upgrade.solver import upgrade_solver as upgrade_solver
from dtrain.core.graph.upgrade.step import NetDocument as NetDocument
