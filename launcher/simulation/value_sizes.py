"""How many bytes the values of a net's blobs take in the layouts that the engine has planned for them.

net ──> here ──> planned pool (memory_plan.py)

What a convolution reads and gives has the layout that it was made for, filled up with zeros where that has blocks,
and in bf16 if it computes so. Operations that take values as they come pass that on, gradients go back the same way,
and all else reads and writes plain float32. Who reads another form than what is there makes a copy that lives on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Step, operations_of
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.onednn.concat import Concat
from dtrain.core.engines.onednn.convolution import Convolution
from dtrain.core.engines.onednn.eltwise import EltwiseInLayout, EltwiseSum
from dtrain.core.engines.onednn.fused import FusedWeighted
from dtrain.core.engines.onednn.inner_product import InnerProductInBF16
from dtrain.core.engines.onednn.layout_names import layout_name
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.net.net import Net
from dtrain.core.net.steps import find_steps
from dtrain.core.tensor import Memory, Tensor

CONVOLUTIONS = frozenset({"Convolution", "Deconvolution", "ConvolutionDepthwise", "DepthwiseConvolution"})
_FOLLOWERS = ByLayout, Concat, EltwiseInLayout, EltwiseSum  # they take values as they come


class Form(NamedTuple):
    """A layout's name, and what a value takes there, with its share of what fills it up. is_rounded: it is bf16."""

    name: str
    bytes_per_value: float
    is_rounded: bool = False


PLAIN = Form("plain", 4.0)
_ROWS_IN_BF16 = Form("rows bf16", 2.0, is_rounded=True)  # what an inner product reads


def storage_bytes(net: Net) -> dict[int, int]:
    """Return the bytes of each storage of a blob's data or diff, by its id, with all copies of its values."""
    forms = _find_forms(net)
    found: dict[int, int] = {}
    for blob in net.blobs.values():
        for storage in (blob.data_tensor.storage, blob.diff_tensor.storage):
            size = sum(form.bytes_per_value for form in forms.copies.get(id(storage), {PLAIN}))
            found[id(storage)] = math.ceil(
                storage.capacity * storage.dtype.itemsize * size / PLAIN.bytes_per_value
            )
    return found


def rounded_blobs(net: Net) -> frozenset[str]:
    """Return the blobs whose data are bf16 where a layer has written them."""
    written = _find_forms(net).written
    return frozenset(
        name for name, blob in net.blobs.items() if written.get(id(blob.data_tensor), PLAIN).is_rounded
    )


def _find_forms(net: Net) -> _Forms:
    forms = _Forms()
    uses = [
        use for step in find_steps(net.layers, net.bottoms, net.tops, net.groups) for use in _uses_of(step)
    ]
    for use in uses:
        forms.run_forward(use)
    for use in reversed(uses):
        forms.run_backward(use)
    return forms


class _Use(NamedTuple):
    """One operation, or None for what a layer computes on arrays itself, and its blobs."""

    operation: Any
    bottoms: Sequence[Blob]
    tops: Sequence[Blob]


def _uses_of(step: Step) -> Iterator[_Use]:
    found = [
        operation.operation if isinstance(operation, FusedWeighted) else operation
        for operation in operations_of(step.runs)
    ]
    if len(found) == len(step.bottoms) == len(step.tops):
        for operation, bottom, top in zip(found, step.bottoms, step.tops, strict=True):
            yield _Use(operation, [bottom], [top])
    else:
        yield _Use(found[0] if len(found) == 1 else None, step.bottoms, step.tops)


class _Forms:
    """The forms of values, found by going through a net as a pass does.

    copies: of each storage, by id, all forms in which its values are there. written: the form in which each tensor,
    by id, was written last.
    """

    def __init__(self) -> None:
        self.copies: dict[int, set[Form]] = {}
        self.written: dict[int, Form] = {}

    def run_forward(self, use: _Use) -> None:
        """Note what reads the data of bottoms, and writes those of tops."""
        bottoms, tops = _data(use.bottoms), _data(use.tops)
        operation = use.operation
        if isinstance(operation, Convolution):
            reads, writes = _form(operation.x_memory), _form(operation.y_memory)
            self._read(bottoms[:1], reads)
            self._read(bottoms[1:], writes)
            self._write(tops, writes)
        elif isinstance(operation, InnerProductInBF16):
            self._read(bottoms, _ROWS_IN_BF16)
            self._write(tops, PLAIN)
        else:
            form = self._form_of_first(bottoms) if isinstance(operation, _FOLLOWERS) else PLAIN
            if isinstance(operation, EltwiseInLayout) and form.is_rounded:  # numpy has no bf16
                form = PLAIN
            self._read(bottoms, form)
            self._write(tops, form)

    def run_backward(self, use: _Use) -> None:
        """Note what reads the diffs of tops, and writes those of bottoms."""
        bottoms, tops = _diffs(use.bottoms), _diffs(use.tops)
        operation = use.operation
        if isinstance(operation, Convolution):
            self._read(tops, _form(operation.y_memory))
            self._write(bottoms[:1], _form(operation.x_memory))
            self._write(bottoms[1:], _form(operation.y_memory))
        elif isinstance(operation, InnerProductInBF16):
            self._read(tops, PLAIN)
            self._read(tops, _ROWS_IN_BF16)
            self._write(bottoms, PLAIN)
        elif isinstance(operation, EltwiseSum):  # where the gradient comes from, as Split's does
            form = self._form_of_first(tops)
            self._read(tops, form)
            self._write(bottoms, form)
        elif isinstance(operation, _FOLLOWERS):
            for diff, data in zip(bottoms, _data(use.bottoms), strict=True):
                form = self.written.get(id(data), PLAIN)
                self._read(tops, form if len(bottoms) == 1 else self._form_of_first(tops))
                self._write([diff], form)
        else:
            self._read(tops, PLAIN)
            self._write(bottoms, PLAIN)

    def _form_of_first(self, tensors: Iterable[Tensor]) -> Form:
        forms = (self.written.get(id(tensor), PLAIN) for tensor in tensors)
        return next((form for form in forms if form is not PLAIN), PLAIN)

    def _read(self, tensors: Iterable[Tensor], form: Form) -> None:
        for tensor in tensors:
            there = self.copies.setdefault(id(tensor.storage), set())
            there.add(form)
            if _ROWS_IN_BF16 in there:  # of a shape of its own: made of plain values
                there.add(PLAIN)

    def _write(self, tensors: Iterable[Tensor], form: Form) -> None:
        for tensor in tensors:
            self.copies.setdefault(id(tensor.storage), set()).add(form)
            self.written[id(tensor)] = form


def _form(memory: Memory) -> Form:
    """Return the form of values in an operation's memory."""
    if not isinstance(memory, Layout):
        return PLAIN
    size = memory.descriptor.num_bytes / math.prod(memory.shape)
    return Form(layout_name(memory), size, memory.rounds)


def _data(blobs: Iterable[Blob]) -> list[Tensor]:
    return [blob.data_tensor for blob in blobs]


def _diffs(blobs: Iterable[Blob]) -> list[Tensor]:
    return [blob.diff_tensor for blob in blobs]
