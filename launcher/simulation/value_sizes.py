"""How many bytes the values of a net's blobs take in the forms that their engine has for them.

net ──> forms (value_forms.py) ──> here ──> planned pool (memory_plan.py)

On oneDNN these are the layouts that it has planned, filled up with zeros where they have blocks, and in bf16 if it
computes so; on cuDNN 16 bits with channels last if it computes so, else all is plain.
"""

from __future__ import annotations

import math
from typing import Any

from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.onednn.concat import Concat
from dtrain.core.engines.onednn.convolution import Convolution
from dtrain.core.engines.onednn.eltwise import EltwiseInLayout, EltwiseSum
from dtrain.core.engines.onednn.inner_product import InnerProductInBF16
from dtrain.core.engines.onednn.layout_names import layout_name
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.engines.outline import Outlined
from dtrain.core.net.net import Net
from dtrain.core.tensor import Memory
from dtrain.launcher.simulation.value_forms import PLAIN, FindWay, Form, Forms, Kind, Use, Way

CONVOLUTIONS = frozenset({"Convolution", "Deconvolution", "ConvolutionDepthwise", "DepthwiseConvolution"})

_ROWS_IN_BF16 = Form("rows bf16", 2.0, is_rounded=True, is_of_plain=True)  # what an inner product reads
_HALF = Form("channels last", 2.0, is_rounded=True)
_HALF_ROWS = Form("rows in 16 bits", 2.0, is_rounded=True)
_OTHER = Way(Kind.OTHER)

_CUDNN = "dtrain.core.engines.cudnn."
# What the engine cudnn does in 16 bits, by names: a CPU need not wait for its modules.
_ON_CUDNN = {
    "Convolution": Kind.FIXED,
    "InnerProduct": Kind.ROWS,
    **dict.fromkeys(("Concat", "EltwiseSum", "FusedSum"), Kind.SUMS),
    **dict.fromkeys(("Activation", "BatchNorm", "FusedBatchNorm", "LRN", "Pooling"), Kind.FOLLOWS),
}


def storage_bytes(net: Net, least: bool = False) -> dict[int, int]:
    """Return the bytes of each storage of a blob's data or diff, by its id, with all copies of its values.

    least: with the smallest copy alone.
    """
    copies = _find_forms(net).copies
    found: dict[int, int] = {}
    for blob in net.blobs.values():
        for storage in (blob.data_tensor.storage, blob.diff_tensor.storage):
            sizes = [form.bytes_per_value for form in copies.get(id(storage), {PLAIN})]
            size = min(sizes) if least else sum(sizes)
            found[id(storage)] = math.ceil(
                storage.capacity * storage.dtype.itemsize * size / PLAIN.bytes_per_value
            )
    return found


def rounded_blobs(net: Net) -> frozenset[str]:
    """Return the blobs whose data have 16 bits where a layer has written them."""
    written = _find_forms(net).written
    return frozenset(
        name for name, blob in net.blobs.items() if written.get(id(blob.data_tensor), PLAIN).is_rounded
    )


def _find_forms(net: Net) -> Forms:
    return Forms(net, _way_of(net))


def _way_of(net: Net) -> FindWay:
    engine = net.context.engine
    if engine.name == "onednn":
        return _way_on_onednn
    if engine.name == "cudnn" and engine.precision != "FLOAT32":
        return _way_on_cudnn
    return lambda use: _OTHER


def _way_on_onednn(use: Use) -> Way:
    operation = use.operation
    if isinstance(operation, Convolution):
        return Way(Kind.FIXED, _form(operation.x_memory), _form(operation.y_memory))
    if isinstance(operation, InnerProductInBF16):
        return Way(Kind.ROWS, _ROWS_IN_BF16, _ROWS_IN_BF16)
    if isinstance(operation, EltwiseSum):
        return Way(Kind.SUMS)
    if isinstance(operation, EltwiseInLayout):
        return Way(Kind.FOLLOWS, takes_rounded=False)  # numpy has no bf16
    return Way(Kind.FOLLOWS) if isinstance(operation, ByLayout | Concat) else _OTHER


def _way_on_cudnn(use: Use) -> Way:
    kind = _ON_CUDNN.get(_name_on_cudnn(use.operation))
    if kind is None:
        return _OTHER
    is_one_place = math.prod(use.bottoms[0].shape[2:]) == 1  # then rows are what channels last are
    reads = _HALF_ROWS if kind is Kind.ROWS and not is_one_place else _HALF
    return Way(kind, reads, _HALF)


def _name_on_cudnn(operation: Any) -> str:
    """Return the name of the class of the engine cudnn that carries the operation out, or would; "": of another."""
    if isinstance(operation, Outlined):
        return operation.name
    kind = type(operation)
    return kind.__name__ if kind.__module__.startswith(_CUDNN) else ""


def _form(memory: Memory) -> Form:
    """Return the form of values in an operation's memory."""
    if not isinstance(memory, Layout):
        return PLAIN
    size = memory.descriptor.num_bytes / math.prod(memory.shape)
    return Form(layout_name(memory), size, memory.rounds)
