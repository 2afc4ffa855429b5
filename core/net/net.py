"""A net: the layers of a graph with their blobs, run forward and backward on an engine.

    prototxt ──> graph ──> net ──> solver

Follows caffe's net.cpp. Params that are learned live in one arena (arena.py) once a solver asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from dtrain.core.blob import Blob, BlobVec
from dtrain.core.errors import ItemError, Problems, UserError
from dtrain.core.graph.gradient_flow import Needs, find_needs
from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.graph.node import Node
from dtrain.core.graph.overwriting import find_overwriting
from dtrain.core.layers import LAYERS
from dtrain.core.layers.layer import InPlace, Layer, LayerContext
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.net.callbacks import Callbacks
from dtrain.core.net.flows import find_flows, loss_weights_of
from dtrain.core.net.fusion import Group, find_groups
from dtrain.core.net.params import Param, ParamTable
from dtrain.core.net.refusals import find_refusals
from dtrain.core.net.steps import find_steps
from dtrain.core.tensor import Tensor
from dtrain.data.errors import DataError
from dtrain.dist.activity import Activity
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

T = TypeVar("T")

AUTOMATIC = "(automatic)"  # what the top of a loss that names none is called; as in Caffe it is no output


class Net:
    """The layers of `recipe`, set up and ready to run.

    blobs: name → Blob, in the order in which they appear. params: layer name → BlobVec, for layers that have
    any. bottoms[i], tops[i]: the blobs of layer i. inputs: the tops of Input layers. outputs: the blobs that no
    layer consumes, sorted by name as Caffe does. blob_loss_weights: blob name → weight of its sum in the loss.
    needs[i]: what layer i does in backward. callbacks: what is called around the layers of forward and backward.
    groups: the layers that run as one, each group under the indices of all its layers. weighted_tops[i]: the tops of
    layer i that are part of the loss, with their weights.

    Raises UserError with the mistakes of all layers: shapes that don't fit, fields that can't be.
    """

    def __init__(self, recipe: NetRecipe, context: LayerContext, activity: Activity | None = None) -> None:
        self.recipe = recipe
        self.graph = recipe.graph
        self.context = context
        self.name = recipe.graph.name
        self.layers: list[Layer] = []
        self.layer_names: list[str] = []
        self.blobs: dict[str, Blob] = {}
        self.bottoms: list[list[Blob]] = []
        self.tops: list[list[Blob]] = []
        self.bottom_names: list[list[str]] = []
        self.top_names: list[list[str]] = []
        self.loss_weights: list[list[float]] = []
        self.param_table = ParamTable()
        self.activity = activity if activity is not None else Activity()
        self.callbacks = Callbacks()
        self._known_shapes: list[list[tuple[Tensor, tuple[int, ...]]]] = []  # bottoms, by layer
        self.weighted_tops: list[list[tuple[Blob, float]]] = []
        self.groups: dict[int, Group] = {}
        self._group_bottoms: dict[int, tuple[list[Blob], list[bool]]] = {}
        self._set_up_layers()
        self.needs = self._find_needs()
        self._forward_words = [_forward_words(layer) for layer in self.layers]
        self._backward_words = [f'computing the gradient of layer "{name}"' for name in self.layer_names]
        consumed = {name for names in self.bottom_names for name in names}
        shown = [name for name in self.blobs if not name.startswith(AUTOMATIC)]
        self.outputs = sorted(name for name in shown if name not in consumed)
        self.inputs = [
            name for i, layer in enumerate(self.layers) if layer.type == "Input" for name in self.top_names[i]
        ]
        self._tensors = [
            tensor for blob in self.blobs.values() for tensor in (blob.data_tensor, blob.diff_tensor)
        ]
        self._plan()

    @property
    def phase(self) -> int:
        """caffe_pb2.TRAIN or TEST."""
        return self.graph.state.phase

    @property
    def params(self) -> dict[str, BlobVec]:
        """The params of each layer that has any, by layer name."""
        return {layer.name: layer.blobs for layer in self.layers if layer.blobs}

    @property
    def learnable_params(self) -> list[Param]:
        """The owned params in Caffe's order, those with lr_mult 0 included."""
        return self.param_table.owners

    @property
    def blob_loss_weights(self) -> dict[str, float]:
        """The loss weight of each blob, 0 for most."""
        weights = dict.fromkeys(self.blobs, 0.0)
        for names, layer_weights in zip(self.top_names, self.loss_weights, strict=True):
            weights.update((name, w) for name, w in zip(names, layer_weights, strict=True) if w)
        return weights

    @cached_property
    def reading_layers(self) -> list[ReadingLayer]:
        """The layers that read records."""
        return [layer for layer in self.layers if isinstance(layer, ReadingLayer)]

    def forward(self, start: int = 0, end: int | None = None) -> float:
        """Run layers start … end (inclusive; to the last by default) and return the sum of their losses."""
        last = len(self.layers) - 1 if end is None else end
        loss = 0.0
        for i in range(start, last + 1):
            loss += self.pass_layer(i, self.loss_of)
        if last == len(self.layers) - 1:
            self.context.random.pass_index += 1
        self.refresh()
        return loss

    def pass_layer(self, i: int, take_loss: Callable[[int], T]) -> T:
        """Run layer i forward with all that is called around it; return what `take_loss` makes of its tops."""
        calls = self.callbacks
        for call in calls.before_forward:
            call(i)
        self.run_layer(i)
        loss = take_loss(i)
        for call in calls.after_forward:
            call(i)
        for call in calls.done_forward:
            call(i)
        return loss

    def backward(self, start: int | None = None, end: int = 0) -> None:
        """Run backward from layer `start` (the last by default) down to layer `end`, inclusive."""
        self.pass_back(start, end)
        self.refresh()

    def pass_back(self, start: int | None = None, end: int = 0) -> None:
        """Do what `backward` does, but leave arrays that somebody has got from blob.data or blob.diff as they are."""
        first = len(self.layers) - 1 if start is None else start
        calls = self.callbacks
        for i in range(first, end - 1, -1):
            for call in calls.before_backward:
                call(i)
            self.backward_layer(i)
            for call in calls.after_backward:
                call(i)
            for call in calls.done_backward:
                call(i)

    def forward_layer(self, i: int) -> float:
        """Run layer i forward and return its loss, as run_layer and loss_of do."""
        self.run_layer(i)
        return self.loss_of(i)

    def run_layer(self, i: int) -> None:
        """Run layer i forward; a group runs whole when it is the first one's turn. Raises UserError in its name."""
        group = self.groups.get(i)
        if group is None or i == group.first:
            self.activity.doing = self._forward_words[i]
            try:
                self._reshape_if_needed(i)
                if group is None:
                    self.layers[i].forward(self.bottoms[i], self.tops[i])
                else:
                    self._forward_group(group)
            except (UserError, DataError) as error:
                raise self.in_name_of(i, error) from error.__cause__ or error

    def loss_of(self, i: int) -> float:
        """Return the loss of layer i, which has run: the sum of its tops' values, each top's times its weight."""
        loss = 0.0
        for blob, weight in self.weighted_tops[i]:
            values = blob.read_data()  # mostly one number
            loss += weight * float(values.sum(dtype=np.float64) if values.shape else values)
        return loss

    def backward_layer(self, i: int) -> None:
        """Run layer i backward, if a gradient is needed from it; a group runs whole when it is the last one's turn.

        Raises UserError in the layer's name.
        """
        needs, group = self.needs[i], self.groups.get(i)
        if needs.layer and (group is None or i == group.last or i in self._refusals):
            self.activity.doing = self._backward_words[i]
            try:
                if i in self._refusals:
                    raise UserError(*self._refusals[i])
                if group is None:
                    self.layers[i].backward(self.tops[i], needs.bottoms, self.bottoms[i])
                else:
                    bottoms, wanted = self._group_bottoms[i]
                    group.layers.backward(self.tops[i], wanted, bottoms)
            except UserError as error:
                raise self.in_name_of(i, error) from error.__cause__ or error

    def fuse(self) -> None:
        """Run layers as one from now on where that is faster; what lies between them is not computed then."""
        self.groups = find_groups(
            self.layers, self.bottom_names, self.top_names, self.loss_weights, self.needs
        )
        self._group_bottoms = {i: self._find_bottoms(group) for i, group in self.groups.items()}
        self._plan()

    @property
    def fused_layers(self) -> frozenset[int]:
        """The indices of the layers that run as one with a neighbour."""
        return frozenset(self.groups)

    def _forward_group(self, group: Group) -> None:
        for k in range(group.first + 1, group.last + 1):
            self._reshape_if_needed(k)
        bottoms, _ = self._group_bottoms[group.first]
        group.layers.forward(bottoms, self.tops[group.last])

    def _find_bottoms(self, group: Group) -> tuple[list[Blob], list[bool]]:
        """Return the blobs that a group reads, and whose gradients are wanted of it."""
        bottoms = [self.bottoms[k][place] for k, place in group.bottoms]
        return bottoms, [self.needs[k].layer and self.needs[k].bottoms[place] for k, place in group.bottoms]

    def reshape(self) -> None:
        """Give all blobs their shapes anew, after an input has been reshaped."""
        for i in range(len(self.layers)):
            try:
                self._reshape_layer(i)
            except UserError as error:
                raise self.in_name_of(i, error) from error.__cause__ or error
        self._plan()

    def clear_param_diffs(self) -> None:
        """Set the diffs of all params to 0."""
        for param in self.learnable_params:
            param.blob.clear_diff()

    def share_params_with(self, other: Net) -> None:
        """Use the params of the layers of the same names in `other`. Raises UserError where shapes differ."""
        problems = Problems()
        sources = {layer.name: layer.blobs for layer in other.layers}
        for node, layer in zip(self.graph.nodes, self.layers, strict=True):
            source = sources.get(layer.name)
            if source is None:
                if layer.blobs:
                    log.info(
                        '%s keeps params of its own: the net "%s" does not have it', node.title, other.name
                    )
                continue
            mine, theirs = [b.shape for b in layer.blobs], [b.shape for b in source]
            if mine != theirs:
                problems.add(
                    f"{node.title}: params {mine} differ from {theirs} of the net they are shared with"
                )
                continue
            for blob, shared in zip(layer.blobs, source, strict=True):
                blob.share_data(shared)
        problems.raise_if_any()

    def close(self) -> None:
        """Stop reader threads and close the files of all layers."""
        for layer in self.layers:
            layer.close()

    def _plan(self) -> None:
        """Tell the engine what will run."""
        self.context.engine.plan(find_steps(self.layers, self.bottoms, self.tops, self.groups))

    def refresh(self) -> None:
        """Bring what layers have computed elsewhere to the arrays that somebody got from blob.data or blob.diff."""
        for tensor in self._tensors:
            if tensor.storage.is_shown:
                tensor.refresh()

    # -- setting up ----------------------------------------------------------------------------------------

    def _set_up_layers(self) -> None:
        problems = Problems()
        unknown: set[str] = set()  # tops of layers that could not be set up: what hangs on them is not tried
        for node, overwritten_by in zip(self.graph.nodes, find_overwriting(self.graph.nodes), strict=True):
            if unknown.isdisjoint(node.param.bottom):
                try:
                    self._set_up_layer(node, overwritten_by)
                    continue
                except (UserError, DataError) as error:
                    for problem in str(error).splitlines():
                        problems.add(f"{node.title}: {problem}")
                    problems.cause = problems.cause or error.__cause__
            unknown.update(node.param.top)
        problems.raise_if_any()

    def _set_up_layer(self, node: Node, overwritten_by: tuple[str, ...]) -> None:
        param = node.param
        context = self.context
        if param.HasField("phase") and param.phase != context.phase:
            context = replace(context, phase=param.phase)
        layer = LAYERS[param.type](param, context)
        layer.overwritten_by = overwritten_by
        bottom_names, bottom = list(param.bottom), [self.blobs[name] for name in param.bottom]
        top_names, top = self._make_tops(layer, bottom_names)
        layer.setup(bottom, top)
        layer.reshape(bottom, top)
        self.layers.append(layer)
        self.layer_names.append(layer.name)
        self.bottoms.append(bottom)
        self.tops.append(top)
        self.bottom_names.append(bottom_names)
        self.top_names.append(top_names)
        self.loss_weights.append(loss_weights_of(layer, len(top)))
        self._known_shapes.append(_shapes(bottom))
        weights = zip(top, self.loss_weights[-1], strict=True)
        self.weighted_tops.append([(blob, weight) for blob, weight in weights if weight])
        self._fill_loss_diffs(len(self.layers) - 1)
        self.param_table.add_layer(len(self.layers) - 1, layer)

    def _make_tops(self, layer: Layer, bottom_names: list[str]) -> tuple[list[str], list[Blob]]:
        names = list(layer.param.top)
        if layer.is_loss and not names:
            names = [f"{AUTOMATIC} {layer.name}"]
        tops = []
        for j, name in enumerate(names):
            in_place = j < len(bottom_names) and bottom_names[j] == name
            if in_place and layer.in_place is InPlace.NO:
                raise UserError(f'can\'t work in place; give its top another name than its bottom "{name}"')
            if not in_place:
                self.blobs[name] = Blob()
            tops.append(self.blobs[name])
        return names, tops

    def _reshape_if_needed(self, i: int) -> None:
        for tensor, shape in self._known_shapes[i]:
            if tensor.shape is not shape and tensor.shape != shape:
                self._reshape_layer(i)
                return
        if self.layers[i].reshapes_each_pass:
            self._reshape_layer(i)

    def _reshape_layer(self, i: int) -> None:
        self.layers[i].reshape(self.bottoms[i], self.tops[i])
        self._known_shapes[i] = _shapes(self.bottoms[i])
        self._fill_loss_diffs(i)

    def _fill_loss_diffs(self, i: int) -> None:
        for blob, weight in self.weighted_tops[i]:
            blob.write_diff()[...] = weight

    def in_name_of(self, i: int, error: UserError | DataError) -> UserError:
        """Return the mistakes that layer i reports with its place and name in front, and the record at fault."""
        behind = ""
        if isinstance(error, ItemError):
            records = [layer.name_item(error.item) for layer in self.reading_layers]
            behind = f" in {', '.join(records) or f'item {error.item} of the batch'}"
        title = self.graph.nodes[i].title
        return UserError(*[f"{title}: {problem}{behind}" for problem in str(error).splitlines()])

    def _find_needs(self) -> list[Needs]:
        names = self.bottom_names, self.top_names
        flows = find_flows(self.layers, *names, self.loss_weights, self.param_table)
        needs = find_needs(flows, self.graph.force_backward)
        self._refusals = self._find_refusals(needs)
        for layer, need in zip(self.layers, needs, strict=True):
            layer.param_propagate_down = need.params
            layer.runs_backward = need.layer
        return needs

    def _find_refusals(self, needs: Sequence[Needs]) -> dict[int, list[str]]:
        """Return why layers can't give the gradients that `needs` asks them for, by the layer's index.

        A net that is to learn is refused right away. One for tests may never run backward, nor may one that asks for
        every gradient by force_backward: there it is an error when such a layer's turn comes, as in Caffe.
        """
        refusals = find_refusals(self.layers, needs, self.bottom_names)
        problems = Problems()
        if self.phase == caffe_pb2.TRAIN and not self.graph.force_backward:
            for i, reasons in refusals.items():
                for reason in reasons:
                    problems.add(f"{self.graph.nodes[i].title}: {reason}")
        problems.raise_if_any()
        return refusals


def _shapes(blobs: Sequence[Blob]) -> list[tuple[Tensor, tuple[int, ...]]]:
    return [(blob.data_tensor, blob.shape) for blob in blobs]


def _forward_words(layer: Layer) -> str:
    """Return what a rank is doing in the layer's forward; the watchdog gives readers more time than others."""
    if isinstance(layer, ReadingLayer):
        return f'reading a batch for layer "{layer.name}"'
    return f'computing layer "{layer.name}"'
