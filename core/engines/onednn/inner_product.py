"""The oneDNN engine's inner product: three matrix products on plain arrays, in float32 or in bf16.

Forward is a primitive in float32 too: it can do what comes behind, and by a matrix that lies turned it is a tenth
faster than dnnl_sgemm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.operations import InnerProductSpec, Shape, Wanted, WeightedOperation

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine


def create_inner_product(
    spec: InnerProductSpec, engine: OneDnnEngine, post_ops: dnn.PostOps = ()
) -> WeightedOperation:
    """Return what carries out `spec` in the values that the engine computes in."""

    def create(values: int) -> WeightedOperation:
        kind = InnerProductInBF16 if values == dnn.BF16 else InnerProduct
        return kind(spec, engine, post_ops)

    return engine.create_in_its_values("InnerProduct", create)


class _Products:
    """Products of matrices of one type of values, with sums and results in float32; first that of the forward pass.

    post_ops: what is done to y; backward does not know of it.
    """

    values: ClassVar[int]

    def __init__(self, spec: InnerProductSpec, engine: OneDnnEngine, post_ops: dnn.PostOps = ()) -> None:
        self.spec = spec
        self.layouts = engine.layouts
        self.binding = engine.binding
        rows, inputs, outputs = spec.num_rows, spec.num_inputs, spec.num_outputs
        x = self._matrix((rows, inputs), False)
        by_weight = self._matrix((inputs, outputs), not spec.transposed)
        bias = self.layouts.plain((1, outputs)) if spec.bias else None
        self._for_y = self._product(x, by_weight, (rows, outputs), bias, post_ops)

    def _matrix(self, shape: Shape, lies_turned: bool) -> dnn.Descriptor:
        """Return a matrix of `shape`, which lies in memory row by row or, turned, column by column."""
        return self.binding.plain(shape, (1, shape[0]) if lies_turned else (), self.values)

    def _product(
        self,
        left: dnn.Descriptor,
        right: dnn.Descriptor,
        shape: Shape,
        bias: dnn.Descriptor | None = None,
        post_ops: dnn.PostOps = (),
        adds: bool = False,
    ) -> dnn.Primitive:
        """Return left·right (+ bias) in float32; with `adds` it is added to what is there."""
        result = self.layouts.plain(shape)
        if adds:
            post_ops = [("sum", 1.0, 0, dnn.FLOAT32), *post_ops]
        what = self.binding.describe("matmul", left, right, bias, result, post_ops=post_ops)
        operands = {dnn.SRC: left, dnn.WEIGHTS: right}
        operands |= {dnn.BIAS: bias} if bias else {}
        return dnn.Primitive(self.binding, what, operands | {dnn.DST: result})


class InnerProduct(_Products):
    """Carry out an InnerProductSpec: M rows, K inputs, N outputs. Gradients are added to by the product itself."""

    values = dnn.FLOAT32

    def __init__(self, spec: InnerProductSpec, engine: OneDnnEngine, post_ops: dnn.PostOps = ()) -> None:
        super().__init__(spec, engine, post_ops)
        self._sgemm = engine.binding.functions.dnnl_sgemm
        self._check = engine.binding.check

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y = x·Wᵀ + b."""
        biases = [] if bias is None else [bias.read_data()]
        self._for_y.run(x.read_data(), weight.read_data(), *biases, y.write_data())

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute dx = dy·W, dW += dyᵀ·x, db += Σ dy."""
        rows, inputs, outputs = self._sizes
        y_diff = y.read_diff()
        if wanted.weight:
            left, right = (True, y_diff), (False, x.read_data())
            sizes = (outputs, inputs, rows)
            if self.spec.transposed:
                left, right = (True, x.read_data()), (False, y_diff)
                sizes = (inputs, outputs, rows)
            self._multiply(sizes, left, right, *weight.join_diff())
        if wanted.bias and bias is not None:
            bias.add_to_diff(y_diff.reshape(rows, outputs).sum(axis=0))
        if wanted.x:
            by_weight = (self.spec.transposed, weight.read_data())
            self._multiply((rows, inputs, outputs), (False, y_diff), by_weight, x.write_diff(), False)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.spec.num_rows, self.spec.num_inputs, self.spec.num_outputs

    def _multiply(
        self,
        sizes: tuple[int, int, int],
        left: tuple[bool, Any],
        right: tuple[bool, Any],
        result: Any,
        accumulates: bool,
    ) -> None:
        """Compute result (m, n) = left (m, k)·right (k, n), or add it; an operand is (is transposed, array)."""
        m, n, k = sizes
        letters = [b"T" if is_transposed else b"N" for is_transposed, _ in (left, right)]
        a, b, c = [self.binding.locate(array)[1] for array in (left[1], right[1], result)]
        steps = (m if left[0] else k, k if right[0] else n)
        status = self._sgemm(*letters, m, n, k, 1.0, a, steps[0], b, steps[1], float(accumulates), c, n)
        self._check(status, "sgemm")


class InnerProductInBF16(_Products):
    """Carry out an InnerProductSpec on x, W and dy in bf16; y, dx and the params' gradients are float32, as all sums.

    Only what goes in is rounded, so that what a loss is made of is not; W once per change, from the values that the
    update rules work on.
    """

    values = dnn.BF16

    def __init__(self, spec: InnerProductSpec, engine: OneDnnEngine, post_ops: dnn.PostOps = ()) -> None:
        super().__init__(spec, engine, post_ops)
        rows, inputs, outputs = spec.num_rows, spec.num_inputs, spec.num_outputs
        self._x_memory, self._y_memory, self._weight_memory = (
            self.layouts.memory(self.binding.plain(shape, (), dnn.BF16), shape)
            for shape in ((rows, inputs), (rows, outputs), self._weight_shape)
        )
        x, x_turned = self._matrix((rows, inputs), False), self._matrix((inputs, rows), True)
        y, y_turned = self._matrix((rows, outputs), False), self._matrix((outputs, rows), True)
        back = self._matrix((outputs, inputs), spec.transposed)
        factors = (x_turned, y) if spec.transposed else (y_turned, x)
        self._for_x = self._product(y, back, (rows, inputs))
        self._for_weight = {
            adds: self._product(*factors, self._weight_shape, adds=adds) for adds in (False, True)
        }

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y = x·Wᵀ + b."""
        biases = [] if bias is None else [bias.read_data()]
        weight_data = weight.read_data(self._weight_memory)
        self._for_y.run(x.read_data(self._x_memory), weight_data, *biases, y.write_data())

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute dx = dy·W, dW += dyᵀ·x, db += Σ dy."""
        if wanted.bias and bias is not None:
            bias.add_to_diff(y.read_diff().reshape(self.spec.num_rows, -1).sum(axis=0))
        y_diff = y.read_diff(self._y_memory)
        if wanted.weight:
            factors = [y_diff, x.read_data(self._x_memory)]
            if self.spec.transposed:
                factors.reverse()
            weight_diff, is_sum = weight.join_diff()
            self._for_weight[is_sum].run(*factors, weight_diff)
        if wanted.x:
            self._for_x.run(y_diff, weight.read_data(self._weight_memory), x.write_diff())

    @property
    def _weight_shape(self) -> Shape:
        shape = self.spec.num_outputs, self.spec.num_inputs
        return shape[::-1] if self.spec.transposed else shape
