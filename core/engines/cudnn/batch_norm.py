"""Batch normalisation, as Caffe's without learned scale and shift, or with those of a Scale layer behind and the ReLU
behind that: by cuDNN in plain memory, and in 16 bits by kernels of our own (norm_kernels.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import ONE, ZERO, address
from dtrain.core.engines.cudnn.by_memory import ByMemory
from dtrain.core.engines.cudnn.epilogue import Epilogue, pass_gradient
from dtrain.core.engines.cudnn.memory import ChannelsLast
from dtrain.core.engines.cudnn.norm_kernels import NormKernels
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.operations import BatchNormSpec, FusedBatchNormSpec, Wanted
from dtrain.core.kept import Kept

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class Norm(ByMemory):
    """What both kinds share. The gradient needs x again, so where y is x itself the values of x are kept.

    The variance is made of the 1 / sqrt(variance + eps) that cuDNN keeps for backward: its error is what rounding
    does to variance + eps, and nobody uses it but in that sum. cuDNN's running variance has all bits, but takes in
    what lay there before, NaN too, and is divided by 0 where a channel has one value.
    """

    def __init__(
        self,
        spec: BatchNormSpec,
        engine: CudnnEngine,
        scale: bool = False,
        shift: bool = False,
        relu: bool = False,
    ) -> None:
        super().__init__(engine, spec.x_shape)
        xp, num_channels = engine.xp, self.shape[1]
        self.spec = spec
        self.scale, self.shift, self.relu = scale, shift, relu
        self._channels = self.binding.tensor((1, num_channels, *[1] * (len(self.shape) - 2)), "float32")
        self._ones, self._zeros = xp.ones(num_channels, np.float32), xp.zeros(num_channels, np.float32)
        self._mean, self._inverse = (xp.empty(num_channels, np.float32) for _ in range(2))
        self._unwanted = [
            xp.zeros(num_channels, np.float32) for _ in range(2)
        ]  # gradients that are given all the same
        self._epilogue = Epilogue(engine, self.shape, False, False, relu)
        self._kernels = NormKernels(engine, self.shape, relu)
        self._memory: DeviceMemory | ChannelsLast = self.memories.plain
        self._x = Kept()

    def run_forward(
        self,
        x: Blob,
        y: Blob,
        mean: Blob,
        variance: Blob,
        params: tuple[Blob | None, Blob | None],
        keeps: bool,
    ) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self._memory = memory = self.for_data(x)
        takes_x = y is x and (self.spec.batch_statistics or (keeps and self.scale))  # cuDNN wants two arrays
        x_data = self._x.take(x.data_tensor, memory) if takes_x else x.read_data(memory)
        y_data, learned = y.write_data(memory), self._learned(params)
        if not self.spec.batch_statistics:
            self._run_given(x_data, y_data, learned, (mean, variance), keeps)
        else:
            given = mean.write_data(self.memories.plain), variance.write_data(self.memories.plain)
            if isinstance(memory, ChannelsLast):
                kept = self._mean, self._inverse
                self._kernels.forward(x_data, y_data, learned, kept, given, self.spec.eps)
            else:
                self._run(x_data, y_data, learned, given)
        if not keeps:
            self.let_go()

    def run_backward(self, x: Blob, y: Blob, params: tuple[Blob | None, Blob | None], wanted: Wanted) -> None:
        """Compute x.diff if wanted, and add to the diffs of the wanted params."""
        memory = self._memory
        needs_x = self.spec.batch_statistics or self.scale
        x_data = (self._x.values if y is x else x.read_data(memory)) if needs_x else None
        if self.spec.batch_statistics and isinstance(memory, ChannelsLast):
            y_diff = y.read_diff(memory)
            x_diff = x.write_diff(memory) if wanted.x else None
            targets, sums = self._targets(params, wanted)
            flags = wanted.weight | sums[0] << 1 | wanted.bias << 2 | sums[1] << 3
            kept = self._mean, self._inverse
            self._kernels.backward(x_data, y_diff, self._learned(params), kept, targets, flags, x_diff)
        else:
            if self.relu:
                y_diff = y.update_diff(memory)
                pass_gradient(self.engine, y.read_data(memory), y_diff, y_diff)
            backward = self._backward if self.spec.batch_statistics else self._backward_of_given
            backward(x_data, x, y, params, wanted)
        self.let_go()

    def let_go(self) -> None:
        """Forget what forward has kept for backward."""
        self._x.give_back()
        self._x.values = None

    def _run(self, x_data: Any, y_data: Any, learned: tuple[Any, Any], given: tuple[Any, Any]) -> None:
        """Compute y in plain memory, and its statistics."""
        kept = address(self._mean), address(self._inverse)
        self.binding.run(
            "BatchNormalizationForwardTraining",
            *self._operands(x_data, y_data, learned),
            *(1.0, None, None, float(self.spec.eps), *kept),
        )
        count, kernel = self._mean.size, self.engine.kernel("statistics", "statistics")
        kernel.run(count, self._mean, self._inverse, *given, np.int32(count), np.float64(self.spec.eps))
        self._epilogue.run(y_data, self._memory, None)

    def _run_given(
        self, x_data: Any, y_data: Any, learned: tuple[Any, Any], statistics: tuple[Blob, Blob], keeps: bool
    ) -> None:
        """Compute y with statistics that are given."""
        mean, variance = (blob.read_data(self.memories.plain) for blob in statistics)
        is_half = isinstance(self._memory, ChannelsLast)
        if keeps or is_half:
            self._mean[...] = mean
            self._inverse[...] = 1 / self.engine.xp.sqrt(variance + np.float32(self.spec.eps))
        if is_half:
            self._kernels.apply(x_data, y_data, learned, (self._mean, self._inverse))
            return
        self.binding.run(
            "BatchNormalizationForwardInference",
            *self._operands(x_data, y_data, learned),
            *(address(mean), address(variance), float(self.spec.eps)),
        )
        self._epilogue.run(y_data, self._memory, None)

    def _operands(self, x_data: Any, y_data: Any, learned: tuple[Any, Any]) -> tuple[Any, ...]:
        """Return what both of cuDNN's functions begin with."""
        values = self.tensor(self._memory)
        images = values, address(x_data), values, address(y_data)
        return dnn.SPATIAL, ONE, ZERO, *images, self._channels, *map(address, learned)

    def _backward(
        self, x_data: Any, x: Blob, y: Blob, params: tuple[Blob | None, Blob | None], wanted: Wanted
    ) -> None:
        values, plain = self.tensor(self._memory), self.memories.plain
        y_diff = y.read_diff(plain)
        if x is y and wanted.x:  # cuDNN does not say that it works in place
            y_diff = y_diff.copy()
        x_diff = x.write_diff(plain) if wanted.x else self.engine.xp.empty_like(y_diff)
        targets, sums = self._targets(params, wanted)
        if any(sums):  # cuDNN has one factor for both of what is there
            for target, is_sum in zip(targets, sums, strict=True):
                if not is_sum:
                    target.fill(0)
        factors = ONE, ZERO, ONE, ONE if any(sums) else ZERO
        self.binding.run(
            "BatchNormalizationBackward",
            *(dnn.SPATIAL, *factors, values, address(x_data), values, address(y_diff)),
            *(values, address(x_diff), self._channels, address(self._learned(params)[0])),
            *(*map(address, targets), float(self.spec.eps), address(self._mean), address(self._inverse)),
        )

    def _targets(
        self, params: tuple[Blob | None, Blob | None], wanted: Wanted
    ) -> tuple[tuple[Any, Any], list[bool]]:
        """Return where the gradients of scale and shift go, and whether they are added to what is there."""
        targets, sums = list(self._unwanted), [False, False]
        for k, (param, is_wanted) in enumerate(zip(params, (wanted.weight, wanted.bias), strict=True)):
            if param is not None and is_wanted:
                targets[k], sums[k] = param.join_diff(self.memories.plain)
        return (targets[0], targets[1]), sums

    def _backward_of_given(
        self, x_data: Any, x: Blob, y: Blob, params: tuple[Blob | None, Blob | None], wanted: Wanted
    ) -> None:
        """Compute dx = dy·scale / sqrt(variance + eps), Σ dy·(x − mean) / sqrt(variance + eps) and Σ dy."""
        plain, (scale, shift) = self.memories.plain, params
        shape = (*self.shape[:2], -1)
        y_diff = y.read_diff(plain).reshape(shape)
        if scale is not None and wanted.weight:
            normalised = self._plain(x_data).reshape(shape) - self._mean.reshape(-1, 1)
            normalised *= self._inverse.reshape(-1, 1)
            normalised *= y_diff
            scale.add_to_diff(normalised.sum(axis=(0, 2)), plain)
        if shift is not None and wanted.bias:
            shift.add_to_diff(y_diff.sum(axis=(0, 2)), plain)
        if wanted.x:
            factor = self._inverse if scale is None else self._inverse * scale.read_data(plain)
            x_diff = x.write_diff(plain).reshape(shape)
            self.engine.xp.multiply(y_diff, factor.reshape(-1, 1), out=x_diff)

    def _plain(self, values: Any) -> Any:
        if not isinstance(self._memory, ChannelsLast):
            return values
        plain = self.engine.xp.empty(values.size, np.float32)
        self._memory.to_plain(values, plain)
        return plain

    def _learned(self, params: tuple[Blob | None, Blob | None]) -> tuple[Any, Any]:
        """Return scale and shift, or what changes nothing where there are none."""
        plain, (scale, shift) = self.memories.plain, params
        return (
            self._ones if scale is None else scale.read_data(plain),
            self._zeros if shift is None else shift.read_data(plain),
        )


class BatchNorm(Norm):
    """Carry out a BatchNormSpec."""

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob, keeps: bool = True) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self.run_forward(x, y, mean, variance, (None, None), keeps)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff, through the statistics with batch_statistics."""
        self.run_backward(x, y, (None, None), Wanted())


class FusedBatchNorm(Norm):
    """Carry out a FusedBatchNormSpec."""

    def __init__(self, spec: FusedBatchNormSpec, engine: CudnnEngine) -> None:
        super().__init__(spec.norm, engine, spec.scale, spec.shift, spec.relu)

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
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        self.run_forward(x, y, mean, variance, (scale, shift), keeps)

    def backward(self, x: Blob, y: Blob, scale: Blob | None, shift: Blob | None, wanted: Wanted) -> None:
        """Compute x.diff, and add to the wanted ones of scale.diff and shift.diff."""
        self.run_backward(x, y, (scale, shift), wanted)
