"""In which forms the values of a net's blobs are there, found by going through the net as a pass does.

net ──> here, by the ways of its engine's operations (value_sizes.py) ──> sizes of values ──> planned pool

What a convolution reads and gives has the form that it was made for. Operations that take values as they come pass
that on, gradients go back the same way, and all else reads and writes plain float32. Who reads another form than what
is there makes a copy that lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Step, operations_of
from dtrain.core.engines.fused_weighted import FusedWeightedBase
from dtrain.core.net.net import Net
from dtrain.core.net.steps import find_steps
from dtrain.core.tensor import Tensor


class Form(NamedTuple):
    """A layout's name, and what a value takes there, with its share of what fills it up.

    is_rounded: it has 16 bits. is_of_plain: it is made of plain values, which then are there too.
    """

    name: str
    bytes_per_value: float
    is_rounded: bool = False
    is_of_plain: bool = False


PLAIN = Form("plain", 4.0)


class Kind(Enum):
    """How an operation takes values.

    FIXED: in two forms that it was made for, one at each end. ROWS: in a form of its own, and gives plain ones.
    FOLLOWS: as they come, gradients as the data are. SUMS: likewise, gradients as they come. OTHER: plain.
    """

    FIXED, ROWS, FOLLOWS, SUMS, OTHER = range(5)


class Way(NamedTuple):
    """A kind with its forms. reads: of bottom 0. writes: of the top. takes_rounded: whether it follows 16 bits."""

    kind: Kind
    reads: Form = PLAIN
    writes: Form = PLAIN
    takes_rounded: bool = True


class Use(NamedTuple):
    """One operation, or None for what a layer computes on arrays itself, and its blobs."""

    operation: Any
    bottoms: Sequence[Blob]
    tops: Sequence[Blob]


FindWay = Callable[[Use], Way]


class Forms:
    """The forms of values of a net.

    copies: of each storage, by id, all forms in which its values are there. written: the form in which each tensor,
    by id, was written last.
    """

    def __init__(self, net: Net, find_way: FindWay) -> None:
        self.copies: dict[int, set[Form]] = {}
        self.written: dict[int, Form] = {}
        steps = find_steps(net.layers, net.bottoms, net.tops, net.groups)
        uses = [(use, find_way(use)) for step in steps for use in uses_of(step)]
        for use, way in uses:
            self._run_forward(use, way)
        for use, way in reversed(uses):
            self._run_backward(use, way)

    def _run_forward(self, use: Use, way: Way) -> None:
        """Note what reads the data of bottoms, and writes those of tops."""
        bottoms, tops = _data(use.bottoms), _data(use.tops)
        if way.kind is Kind.FIXED:
            self._read(bottoms[:1], way.reads)
            self._read(bottoms[1:], way.writes)
            self._write(tops, way.writes)
        elif way.kind is Kind.ROWS:
            self._read(bottoms, way.reads)
            self._write(tops, PLAIN)
        else:
            form = PLAIN if way.kind is Kind.OTHER else self._form_of_first(bottoms)
            if form.is_rounded and not way.takes_rounded:
                form = PLAIN
            self._read(bottoms, form)
            self._write(tops, form)

    def _run_backward(self, use: Use, way: Way) -> None:
        """Note what reads the diffs of tops, and writes those of bottoms."""
        bottoms, tops = _diffs(use.bottoms), _diffs(use.tops)
        if way.kind is Kind.FIXED:
            self._read(tops, way.writes)
            self._write(bottoms[:1], way.reads)
            self._write(bottoms[1:], way.writes)
        elif way.kind is Kind.ROWS:
            self._read(tops, PLAIN)
            self._read(tops, way.writes)
            self._write(bottoms, PLAIN)
        elif way.kind is Kind.SUMS:  # where the gradient comes from, as Split's does
            form = self._form_of_first(tops)
            self._read(tops, form)
            self._write(bottoms, form)
        elif way.kind is Kind.FOLLOWS:
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
            if any(each.is_of_plain for each in there):
                there.add(PLAIN)

    def _write(self, tensors: Iterable[Tensor], form: Form) -> None:
        for tensor in tensors:
            self.copies.setdefault(id(tensor.storage), set()).add(form)
            self.written[id(tensor)] = form


def uses_of(step: Step) -> Iterator[Use]:
    """Yield the operations of a step with their blobs: one for each bottom, or one for all."""
    found = [
        operation.operation if isinstance(operation, FusedWeightedBase) else operation
        for operation in operations_of(step.runs)
    ]
    if len(found) == len(step.bottoms) == len(step.tops):
        for operation, bottom, top in zip(found, step.bottoms, step.tops, strict=True):
            yield Use(operation, [bottom], [top])
    else:
        yield Use(found[0] if len(found) == 1 else None, step.bottoms, step.tops)


def _data(blobs: Iterable[Blob]) -> list[Tensor]:
    return [blob.data_tensor for blob in blobs]


def _diffs(blobs: Iterable[Blob]) -> list[Tensor]:
    return [blob.diff_tensor for blob in blobs]
