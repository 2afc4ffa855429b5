"""The operations that layers ask of an engine, and what each must do.

A layer describes an operation by one of the frozen specs below (shapes included, since a net is static) and
gets an object from `engine.create(spec)`, made anew when a shape changes. The object may keep what it likes
between forward and backward. All operands are blobs, so that an engine can keep values in its own layout.

Letters: N batch, C channels (axis), K outputs, R S filter size, H W input size, P Q output size.

Every `forward` overwrites y.data. Every `backward` reads y.diff, overwrites x.diff where wanted and
accumulates into the diffs of params where wanted, as Caffe's layers do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from dtrain.core.blob import Blob

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ConvolutionSpec:
    """Cross-correlation over any number of spatial axes, or (transposed) its gradient: deconvolution.

    x_shape: (outer axes…, C, spatial…) with C at `axis`; y_shape likewise with K channels; weight_shape: (K,
    C/group, kernel…), for a transposed one (C, K/group, kernel…). stride, pad, dilation: one per spatial axis.
    y = floor((H + 2·pad − (dilation·(R−1) + 1)) / stride) + 1 along each spatial axis.
    """

    x_shape: Shape
    weight_shape: Shape
    y_shape: Shape
    axis: int
    stride: Shape
    pad: Shape
    dilation: Shape
    group: int = 1
    bias: bool = True
    transposed: bool = False


def one_batch_axis(shape: Shape, axis: int) -> Shape:
    """Return a shape whose channels are at `axis` with all axes before it as one: (N, C, spatial…)."""
    return (math.prod(shape[:axis]), *shape[axis:])


@dataclass(frozen=True)
class InnerProductSpec:
    """y = x·Wᵀ + b with x seen as (M, K) and y as (M, num_output).

    weight: (num_output, K), or (K, num_output) if transposed; bias: (num_output).
    """

    num_rows: int
    num_inputs: int
    num_outputs: int
    bias: bool = True
    transposed: bool = False


class WeightedOperation(Protocol):
    """What convolution and inner product offer."""

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y.data."""

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute the wanted ones of x.diff (overwritten), weight.diff and bias.diff (accumulated)."""


class Wanted(NamedTuple):
    """Which gradients a backward pass is to compute."""

    x: bool = True
    weight: bool = True
    bias: bool = True


@dataclass(frozen=True)
class PoolingSpec:
    """Pooling over windows of (N, C, H, W).

    method: "MAX" (padding never wins; the first of equal values does) or "AVE" (a window's sum over its size
    clipped to H + pad: padding on the near side counts). y_shape is what the layer's rounding rule gave.
    """

    x_shape: Shape
    y_shape: Shape
    method: str
    kernel: Shape
    stride: Shape
    pad: Shape


class PoolingOperation(Protocol):
    """What pooling offers."""

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data, and the argmax h·W + w of each window as float into mask.data if given (MAX)."""

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff; for MAX through the winners of the last forward."""


@dataclass(frozen=True)
class LRNSpec:
    """Local response normalisation of (N, C, H, W) over `local_size` (odd) neighbours n.

    ACROSS_CHANNELS: y = x·(k + alpha/n·Σ x²)^−beta. WITHIN_CHANNEL: y = x·(1 + alpha·avg_n×n(x²))^−beta, the
    average pooled with pad (n − 1)/2 as AVE pooling does; k is ignored.
    """

    x_shape: Shape
    local_size: int
    alpha: float
    beta: float
    k: float
    within_channel: bool


@dataclass(frozen=True)
class SoftmaxSpec:
    """y = exp(x − max x) / Σ exp(x − max x) along `axis`."""

    x_shape: Shape
    axis: int


@dataclass(frozen=True)
class SoftmaxLossSpec:
    """loss = −Σ_places Σ_c q_c·log(max(p_c, smallest)) / divisor, q = (1 − smoothing)·[c = label] + smoothing / C.

    p: probabilities of x_shape, classes along `axis`, the softmax of x. Places whose label is ignore_label don't
    count. divisor 0: how many places count, at least 1. A label that is no class makes the loss NaN. Only for engines
    that do it faster than the layer does.
    """

    x_shape: Shape
    axis: int
    ignore_label: int | None
    divisor: float
    smoothing: float
    smallest: float


class SoftmaxLossOperation(Protocol):
    """What the loss of a softmax offers. labels: one for each place."""

    def forward(self, probabilities: Blob, labels: Blob, loss: Blob) -> None:
        """Compute loss.data, a scalar."""

    def backward(self, probabilities: Blob, labels: Blob, weight: float, x: Blob) -> None:
        """Compute x.diff, that of weight·loss, after forward on the same operands."""


@dataclass(frozen=True)
class ActivationSpec:
    """An elementwise function: "relu" (with negative_slope; the gradient at 0 is negative_slope), "sigmoid"
    (0.5·tanh(0.5·x) + 0.5) or "tanh". y may be x itself; backward then sees only y.
    """

    x_shape: Shape
    function: str
    negative_slope: float = 0.0


class UnaryOperation(Protocol):
    """What LRN, softmax and activations offer."""

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff from y.diff."""


@dataclass(frozen=True)
class BatchNormSpec:
    """y = (x − mean) / sqrt(variance + eps) per channel (axis 1) of (N, C, …).

    With `batch_statistics` mean and the biased variance are those of x, else they are given.
    """

    x_shape: Shape
    eps: float
    batch_statistics: bool


class BatchNormOperation(Protocol):
    """What batch normalisation offers. y may be x itself."""

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob, keeps: bool = True) -> None:
        """Compute y.data; mean.data and variance.data (C) are written with batch_statistics, else read.

        keeps: whether backward may follow, for which more than x and y may have to be kept.
        """

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff: through the statistics with batch_statistics, else dy / sqrt(variance + eps)."""

    def let_go(self) -> None:
        """Forget what forward has kept for backward."""


@dataclass(frozen=True)
class RunningSumsSpec:
    """sums ← fraction·sums + (mean, unbiased·variance, 1): what BatchNorm learns of batches. x_shape: of mean, (C).

    Only for engines that do it faster than the layer does.
    """

    x_shape: Shape
    fraction: float


class RunningSumsOperation(Protocol):
    """What running sums offer."""

    def enter(self, mean: Blob, variance: Blob, sums: Sequence[Blob], unbiased: float) -> None:
        """Enter a batch's statistics into the three sums: of means (C), of variances (C), and of ones (1)."""


@dataclass(frozen=True)
class FusedBatchNormSpec:
    """Batch normalisation with a learned scale, and shift, of each channel, and relu: y = max(s·(x − mean)/… + b, 0).

    Each of the three may be left out; a shift comes with a scale only. A NaN must stay one in relu too. Only for
    engines that do it faster than `norm` and what comes behind it one after the other.
    """

    norm: BatchNormSpec
    scale: bool = True
    shift: bool = True
    relu: bool = False


class FusedBatchNormOperation(Protocol):
    """What batch normalisation with more behind it offers. y may be x itself."""

    def forward(
        self,
        x: Blob,
        y: Blob,
        mean: Blob,
        variance: Blob,
        scale: Blob | None,
        shift: Blob | None,
        keeps: bool = True,
    ) -> None:
        """Compute y.data, and mean and variance; all as BatchNormOperation does."""

    def backward(self, x: Blob, y: Blob, scale: Blob | None, shift: Blob | None, wanted: Wanted) -> None:
        """Compute the wanted ones of x.diff (overwritten), scale.diff (weight) and shift.diff (bias), accumulated."""

    def let_go(self) -> None:
        """Forget what forward has kept for backward."""


@dataclass(frozen=True)
class DropoutSpec:
    """y = x·mask·scale with mask 1 with probability 1 − ratio, else 0. y may be x itself."""

    x_shape: Shape
    ratio: float
    scale: float


class DropoutOperation(Protocol):
    """What dropout offers (TRAIN only; in TEST the layer copies)."""

    def forward(self, x: Blob, y: Blob, random: np.random.Generator) -> None:
        """Draw a mask and compute y.data."""

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff with the mask of the last forward."""


@dataclass(frozen=True)
class RowSumsSpec:
    """target[indices[i]] += rows[i] for all i, those of one index in their order. x_shape: of the indices, (M)."""

    x_shape: Shape


class RowSumsOperation(Protocol):
    """What sums of rows offer. Operands are arrays of the engine: parts of blobs, mostly."""

    def add(self, target: Any, indices: Any, rows: Any) -> None:
        """Add to `target` (V, …) the rows (M, …) by `indices` (M), int64, from 0 to V − 1."""


@dataclass(frozen=True)
class EltwiseSpec:
    """y = Σ coeff_i·x_i ("SUM"), Π x_i ("PROD") or max x_i ("MAX") of equally shaped x_i.

    MAX: of equal values among the first two the second wins; later ones must be strictly greater. PROD's
    gradient multiplies the other inputs (stable) or divides y by the input.
    """

    shape: Shape
    operation: str
    coeffs: tuple[float, ...]
    stable_prod_grad: bool = True


@dataclass(frozen=True)
class ConcatSpec:
    """y is the x_i one after the other along `axis`."""

    x_shapes: tuple[Shape, ...]
    axis: int


class ManyToOneOperation(Protocol):
    """What eltwise and concat offer."""

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute the diff of each wanted x."""


@dataclass(frozen=True)
class FusedWeightedSpec:
    """What `operation` gives, plus another blob of y's shape if `adds`, then of that max(·, 0) if `relu`.

    Only for engines that do it faster than one after the other.
    """

    operation: ConvolutionSpec | InnerProductSpec
    adds: bool
    relu: bool


class FusedWeightedOperation(Protocol):
    """What convolution and inner product offer together with what comes behind. added: what is added, if anything."""

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, added: Blob | None, y: Blob) -> None:
        """Compute y.data."""

    def backward(
        self,
        x: Blob,
        weight: Blob,
        bias: Blob | None,
        added: Blob | None,
        y: Blob,
        wanted: Wanted,
        wants_added: bool,
    ) -> None:
        """Compute what WeightedOperation does, and added.diff (overwritten) if wanted, from y.data (whose sign alone
        counts) and y.diff, which may be written over.
        """


@dataclass(frozen=True)
class FusedSumSpec:
    """max(Σ coeff_i·x_i, 0). Only for engines that do it faster than `sum` and the rest one after the other.

    Carried out by a ManyToOneOperation, whose backward reads y.data, of which the sign alone counts.
    """

    sum: EltwiseSpec


# What an engine may leave out: layers ask for it by `create_own` and do without it.
OPTIONAL: tuple[type, ...] = (
    FusedBatchNormSpec,
    FusedSumSpec,
    FusedWeightedSpec,
    RunningSumsSpec,
    SoftmaxLossSpec,
)
