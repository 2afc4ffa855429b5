"""oneDNN's sum of several blobs; their product and maximum by the reference engine's code, in oneDNN's layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.layouts import Layouts
from dtrain.core.engines.operations import EltwiseSpec, ManyToOneOperation, Shape
from dtrain.core.engines.reference.eltwise import create_eltwise as create_on_arrays
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.tensor import HOST, Memory, Tensor

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine


def create_eltwise(spec: EltwiseSpec, engine: OneDnnEngine) -> ManyToOneOperation:
    """Return what carries out `spec` by its operation."""
    if spec.operation == "SUM":
        return EltwiseSum(spec, engine)
    if spec.operation == "PROD" and not spec.stable_prod_grad:
        raise NotOffered(
            "(a quotient as gradient: the zeros that layouts are filled up with can't be divided)"
        )
    return EltwiseInLayout(spec, engine)


class EltwiseSum:
    """y = Σ coeff_i·x_i, in the layout of the first x that has one."""

    def __init__(self, spec: EltwiseSpec, engine: OneDnnEngine) -> None:
        self.layouts = engine.layouts
        self.binding = engine.binding
        self.shape = spec.shape
        self.coeffs = tuple(map(float, spec.coeffs))
        self._made: dict[tuple[Memory, tuple[float, ...]], dnn.Primitive] = {}

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        memory = common_memory(self.layouts, [x.data_tensor for x in xs], self.shape)
        add = self._sum(memory, self.coeffs)
        add.run(*(x.read_data(memory) for x in xs), y.write_data(memory))

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute dx_i = coeff_i·dy."""
        memory = self.layouts.of(y.diff_tensor, self.shape)
        y_diff = y.read_diff(memory)
        for x, coeff, is_wanted in zip(xs, self.coeffs, wanted, strict=True):
            if is_wanted:
                self._sum(memory, (coeff,)).run(y_diff, x.write_diff(memory))

    def _sum(self, memory: Memory, coeffs: tuple[float, ...]) -> dnn.Primitive:
        made = self._made.get((memory, coeffs))
        if made is None:
            made = self._made[memory, coeffs] = self._make(memory, coeffs)
        return made

    def _make(self, memory: Memory, coeffs: tuple[float, ...]) -> dnn.Primitive:
        values = self.layouts.flat(memory, self.shape)
        num_inputs = len(coeffs)
        what = self.binding.describe(
            "sum", values, num_inputs, dnn.float_array(coeffs), dnn.descriptor_array([values] * num_inputs)
        )
        operands = {dnn.MULTIPLE_SRC + i: values for i in range(num_inputs)}
        return dnn.Primitive(self.binding, what, operands | {dnn.DST: values})


class EltwiseInLayout:
    """Products and maxima, which go value by value and leave the zeros that fill up a layout as they are.

    What is bf16 is taken to the host, since numpy has no such type.
    """

    def __init__(self, spec: EltwiseSpec, engine: OneDnnEngine) -> None:
        self.spec = spec
        self.layouts = engine.layouts
        self._made: dict[Memory, Any] = {}
        self._last: Any = None

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        memory = common_memory(self.layouts, [x.data_tensor for x in xs], self.spec.shape)
        if memory.rounds:
            memory = HOST
        if memory not in self._made:
            self._made[memory] = create_on_arrays(self.spec, _ReferenceIn(memory))
        self._last = self._made[memory]
        self._last.forward(xs, y)

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute the diff of each wanted x."""
        self._last.backward(xs, y, wanted)


class _ReferenceIn(ReferenceEngine):
    """The reference engine on flat arrays of another layout."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory


def common_memory(layouts: Layouts, tensors: Sequence[Tensor], shape: Shape) -> Memory:
    """Return the layout of the first tensor that is in one, or HOST."""
    found = (layouts.of(tensor, shape) for tensor in tensors)
    return next((memory for memory in found if memory is not HOST), HOST)
