"""The params of a net: which blobs are learned, at what rates, and which layers share them.

Follows caffe's net.cpp (AppendParam): params of one ParamSpec name are one blob, owned by the first layer that
names it; a param without a ParamSpec has lr_mult 1 and decay_mult 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Layer
from dtrain.core.net.param_roles import is_bias, is_normalisation
from dtrain.core.written_params import check_number_written
from dtrain.proto import caffe_pb2


@dataclass
class Param:
    """A learnable blob with its owner. lr_mult and decay_mult None: nobody has set them yet (1).

    layer_name: of the owner. is_bias, is_normalisation: what the param is in the owner (param_roles.py).
    """

    blob: Blob
    layer_index: int
    index: int
    name: str
    lr_mult: float | None
    decay_mult: float | None
    is_statistic: bool = False
    layer_name: str = ""
    is_bias: bool = False
    is_normalisation: bool = False

    @property
    def title(self) -> str:
        """The name by which Caffe's log calls the param: that of its ParamSpec, or its place in the layer."""
        return self.name or str(self.index)

    @property
    def learning_rate_multiplier(self) -> float:
        """lr_mult, 1 if unset; running statistics are not learned."""
        if self.is_statistic:
            return 0.0
        return 1.0 if self.lr_mult is None else self.lr_mult

    @property
    def decay_multiplier(self) -> float:
        """decay_mult, 1 if unset."""
        return 1.0 if self.decay_mult is None else self.decay_mult


class ParamTable:
    """All params of a net, filled layer by layer. `owners` are the learnable params in Caffe's order."""

    def __init__(self) -> None:
        self.owners: list[Param] = []
        self._by_name: dict[str, Param] = {}
        self._of_layer: dict[tuple[int, int], Param] = {}
        self._layers: dict[int, Layer] = {}

    def add_layer(self, layer_index: int, layer: Layer) -> None:
        """Enter the params of `layer`, making those of a known name share the owner's memory.

        Raises UserError for shapes that don't fit the owner's and for multipliers that contradict it.
        """
        self._layers[layer_index] = layer
        check_number_written(layer.param, len(layer.blobs))
        specs = layer.param.param
        if len(specs) > len(layer.blobs):
            raise UserError(f"has {len(layer.blobs)} params, but {len(specs)} param {{ … }} blocks are given")
        for i, blob in enumerate(layer.blobs):
            spec = specs[i] if i < len(specs) else caffe_pb2.ParamSpec()
            owner = self._by_name.get(spec.name) if spec.name else None
            param = _share(owner, blob, spec) if owner else self._own(layer_index, i, layer, spec)
            self._of_layer[layer_index, i] = param

    def of(self, layer_index: int, index: int) -> Param:
        """Return the (owning) param of a layer's blob."""
        return self._of_layer[layer_index, index]

    @property
    def with_gradients(self) -> list[Param]:
        """The owners whose diffs backward makes: those that learn, and under force_backward the fixed ones too,
        which then count in the norm of all gradients as in Caffe. Statistics have none.
        """
        wanted = {id(param) for (i, k), param in self._of_layer.items() if self._layers[i].wants_param(k)}
        return [
            param
            for param in self.owners
            if param.learning_rate_multiplier or (id(param) in wanted and not param.is_statistic)
        ]

    def _own(self, layer_index: int, index: int, layer: Layer, spec: caffe_pb2.ParamSpec) -> Param:
        lr_mult = spec.lr_mult if spec.HasField("lr_mult") else None
        decay_mult = spec.decay_mult if spec.HasField("decay_mult") else None
        is_statistic = index < layer.num_statistics
        param = Param(
            layer.blobs[index],
            layer_index,
            index,
            spec.name,
            lr_mult,
            decay_mult,
            is_statistic,
            layer.name,
            is_bias(layer.param, index, len(layer.blobs)),
            is_normalisation(layer.param),
        )
        self.owners.append(param)
        if spec.name:
            self._by_name[spec.name] = param
        return param


def _share(owner: Param, blob: Blob, spec: caffe_pb2.ParamSpec) -> Param:
    if spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE:
        fits = blob.count == owner.blob.count
    else:
        fits = blob.shape == owner.blob.shape
    if not fits:
        raise UserError(
            f'param "{spec.name}" has shape {blob.shape}, but its owner has {owner.blob.shape}; shared params '
            "must be of equal shape, or of equal count with share_mode: PERMISSIVE"
        )
    for field in ("lr_mult", "decay_mult"):
        if spec.HasField(field):
            given, known = getattr(spec, field), getattr(owner, field)
            if known is not None and known != given:
                raise UserError(f'param "{spec.name}" has {field} {given} here and {known} at its owner')
            setattr(owner, field, given)
    blob.share_data(owner.blob)
    blob.share_diff(owner.blob)
    return owner


def trainable(params: Sequence[Param]) -> list[Param]:
    """Return the params whose learning rate is not 0."""
    return [param for param in params if param.learning_rate_multiplier]
