"""What pycaffe shows of a net: its blobs, params and layers in dictionaries by name, the same object each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from functools import cached_property

from dtrain.core.blob import Blob, BlobVec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Layer
from dtrain.core.layers.python import Python
from dtrain.core.names import nearest
from dtrain.core.net.net import Net as CoreNet
from dtrain.core.python_layers.base import Layer as UsersLayer


class NetView:
    """The names, blobs, params and layers of `net`, in the order of forward, splits included."""

    def __init__(self, net: CoreNet) -> None:
        self._net = net

    @cached_property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs by name."""
        return OrderedDict(self._net.blobs)

    @cached_property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """The weight of each blob in the loss, 0 for most."""
        return OrderedDict(self._net.blob_loss_weights)

    @cached_property
    def params(self) -> OrderedDict[str, BlobVec]:
        """The params of each layer that has any."""
        return OrderedDict(self._net.params)

    @cached_property
    def layers(self) -> list[Layer | UsersLayer]:
        """The layers, with type, blobs, setup and reshape; of a Python layer the user's own object."""
        return [layer.users_layer if isinstance(layer, Python) else layer for layer in self._net.layers]

    @cached_property
    def layer_dict(self) -> OrderedDict[str, Layer | UsersLayer]:
        """The layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @cached_property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The names of each layer's tops, by the layer's name."""
        return OrderedDict(zip(self._layer_names, self._net.top_names, strict=True))

    @cached_property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The names of each layer's bottoms, by the layer's name."""
        return OrderedDict(zip(self._layer_names, self._net.bottom_names, strict=True))

    @property
    def inputs(self) -> list[str]:
        """The names of the input blobs, the tops of Input layers."""
        return list(self._net.inputs)

    @property
    def outputs(self) -> list[str]:
        """The names of the blobs that no layer consumes, in the alphabet's order."""
        return list(self._net.outputs)

    def index_of(self, layer: str) -> int:
        """Return a layer's place. Raises UserError that names the nearest and the known for an unknown name."""
        return self._layer_names.index(known(layer, self._layer_names, "layer"))

    def blob(self, name: str) -> Blob:
        """Return the blob called `name`. Raises UserError that names the nearest and the known."""
        return self.blobs[known(name, self.blobs, "blob")]

    @property
    def _layer_names(self) -> list[str]:
        return list(self._net.layer_names)

    @property
    def _blob_names(self) -> list[str]:
        return list(self._net.blobs)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self._net.blobs.values())

    @property
    def _inputs(self) -> list[int]:
        """The places of the inputs in _blobs."""
        return [self._blob_names.index(name) for name in self._net.inputs]

    @property
    def _outputs(self) -> list[int]:
        """The places of the outputs in _blobs."""
        return [self._blob_names.index(name) for name in self._net.outputs]

    def _top_ids(self, layer_index: int) -> list[int]:
        """Return the places of a layer's tops in _blobs."""
        return [self._blob_names.index(name) for name in self._net.top_names[layer_index]]

    def _bottom_ids(self, layer_index: int) -> list[int]:
        """Return the places of a layer's bottoms in _blobs."""
        return [self._blob_names.index(name) for name in self._net.bottom_names[layer_index]]


def known(name: str, names: Collection[str], kind: str) -> str:
    """Return `name`; raise UserError if it is none of the net's `names`."""
    if name not in names:
        hint = nearest(name, names)
        raise UserError(
            f'the net has no {kind} "{name}"{"; " + hint if hint else ""}; it has {", ".join(names)}'
        )
    return name
