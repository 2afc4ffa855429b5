"""In which layout each operation of a net works, planned over the whole net before it first runs.

    Net ──> Engine.plan ──> here ──> planning.py, with costs of layout_costs.py ──> operations' work_in

Convolutions and concatenations have a choice. What goes value by value or channel by channel follows the operation
before it; all else, layers of Python too, reads and writes plain values. A plan says for which layout operations are
made, and tensors bring values to where they are read, so that a wrong guess costs time and nothing else. What is made
anew within a pass, since a batch has another shape, is made for the layout that is best for it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Step, operations_of
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.onednn.concat import Concat
from dtrain.core.engines.onednn.convolution import Convolution
from dtrain.core.engines.onednn.eltwise import EltwiseInLayout, EltwiseSum
from dtrain.core.engines.onednn.fused import FusedWeighted
from dtrain.core.engines.onednn.layout_costs import FEW, LAST, PLAIN, concat_costs, reorder_s
from dtrain.core.engines.onednn.planning import plan

_BOTH_WAYS = 2  # data and diff

Choosing = Convolution | Concat


def plan_layouts(steps: Sequence[Step]) -> None:
    """Tell the operations of `steps` in which layout to work."""
    graph = _Graph()
    for step in steps:
        graph.add(step)
    if all(len(costs) == 1 or LAST not in costs for costs in graph.costs):
        return
    for operation, layout in zip(graph.operations, plan(graph.costs, graph.edges), strict=True):
        if operation is not None:
            operation.work_in(layout)


class _Graph:
    """Nodes: operations that choose a layout, and one for all that is plain. A blob lies where its node is."""

    def __init__(self) -> None:
        self.costs: list[Mapping[str, float]] = [{PLAIN: 0.0}]
        self.operations: list[Choosing | None] = [None]
        self.edges: list[tuple[int, int, float]] = []
        self._nodes: dict[int, int] = {}  # id of a blob → its node; else plain

    def add(self, step: Step) -> None:
        """Add what runs next."""
        found = list(operations_of(step.runs))
        if len(found) == len(step.bottoms) == len(step.tops):
            for operation, bottom, top in zip(found, step.bottoms, step.tops, strict=True):
                self._add(operation, [bottom], [top])
        else:
            self._add(found[0] if len(found) == 1 else None, step.bottoms, step.tops)

    def _add(self, operation: Any, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        if isinstance(operation, FusedWeighted):
            operation = operation.operation
        if isinstance(operation, Convolution):
            node = self._choose(operation, operation.costs)
        elif isinstance(operation, Concat):
            node = self._choose(operation, concat_costs(operation.spec.x_shapes, operation.spec.axis))
        elif isinstance(operation, ByLayout | EltwiseSum | EltwiseInLayout):
            node = next(filter(None, map(self._node, bottoms)), 0)
        else:
            node = 0
        is_image = isinstance(operation, Convolution) and operation.x_shape[1] <= FEW
        for bottom in bottoms[is_image:]:
            self.edges.append((self._node(bottom), node, _BOTH_WAYS * reorder_s(bottom.shape)))
        self._nodes.update((id(top), node) for top in tops)

    def _node(self, blob: Blob) -> int:
        return self._nodes.get(id(blob), 0)

    def _choose(self, operation: Choosing, costs: Mapping[str, float]) -> int:
        self.costs.append(costs)
        self.operations.append(operation)
        return len(self.costs) - 1
