"""BatchNorm: each channel shifted and scaled to mean 0 and variance 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import (
    BatchNormOperation,
    BatchNormSpec,
    RunningSumsOperation,
    RunningSumsSpec,
)
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, FusedLayers, InPlace, Layer
from dtrain.core.layers.parts.fused_batch_norm import fuse_with
from dtrain.core.layers.parts.synchronised_batch_norm import SynchronisedBatchNorm
from dtrain.proto import caffe_pb2

ZERO = caffe_pb2.FillerParameter(type="constant", value=0)


@LAYERS.register("BatchNorm")
class BatchNorm(Layer):
    """Bottom and top: (N, C, …), or (N) as one channel. y = (x − mean) / sqrt(variance + eps) per channel.

    With global statistics (use_global_stats, by default in TEST) mean and variance are running ones, else the
    batch's own, and the running ones take them in. Params are those running sums and are not learned, f being
    moving_average_fraction and m the values per channel:

        mean_sum (C) ← f·mean_sum + mean      var_sum (C) ← f·var_sum + m/(m − 1)·variance
        factor (1)   ← f·factor + 1           mean = mean_sum / factor, variance = var_sum / factor

    There is no learned scale: put a Scale layer behind. Follows caffe's batch_norm_layer.cpp. An extension is
    dtrain_param { sync_statistics: true }: in TRAIN the batch is that of all ranks together, in forward (then
    collective), backward (likewise) and the running sums, which are the same on all ranks.
    """

    extensions = ("sync_statistics",)
    in_place = InPlace.YES
    backward_reads_tops = False
    num_statistics = 3

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the running sums. Raises UserError if the prototxt wants to learn them, or a contradiction."""
        specs = self.param.param
        # Files of old name the three sums with rates that Caffe's own upgrade sets to 0.
        rates = [spec.lr_mult for spec in specs if spec.lr_mult]
        if len(specs) != 3 and rates:
            raise UserError(
                f"param.lr_mult must be 0: the params of BatchNorm are running statistics, got {rates[0]:g}; "
                "learn a scale in a Scale layer behind it"
            )
        self.num_channels = _num_channels(bottom[0].shape)
        for shape in ((self.num_channels,), (self.num_channels,), (1,)):
            self.add_param(shape, ZERO)
        param = self.param.batch_norm_param
        by_phase = self.phase == caffe_pb2.TEST
        self.global_statistics = param.use_global_stats if param.HasField("use_global_stats") else by_phase
        self.synchronised: SynchronisedBatchNorm | None = None
        if self.param.dtrain_param.sync_statistics and param.use_global_stats:
            raise UserError(
                "dtrain_param.sync_statistics must be left out with use_global_stats: true: it is about the "
                "statistics of batches, which are not taken then"
            )

    @property
    def needs_host(self) -> str:
        """Why it can't be captured."""
        return "exchanges statistics with other ranks on the host" if self.synchronised else ""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape. Raises UserError if the number of channels has changed."""
        shape = bottom[0].shape
        if _num_channels(shape) != self.num_channels:
            raise UserError(f"the bottom must keep {self.num_channels} channels at axis 1, got shape {shape}")
        top[0].reshape(*shape)
        self.mean = Blob((self.num_channels,), bottom[0].dtype)
        self.variance = Blob((self.num_channels,), bottom[0].dtype)
        eps = self.param.batch_norm_param.eps
        self.spec = BatchNormSpec(shape, eps, not self.global_statistics)
        self.operation = self._create_operation(self.spec)
        self._num_values, self._numbers = 0, self._make_numbers(0)
        self._sums = self._create_sums()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Normalise; without global statistics also update the running sums."""
        self.prepare_statistics()
        self.operation.forward(bottom[0], top[0], self.mean, self.variance, self.runs_backward)
        self.enter_statistics(bottom[0].count)

    def prepare_statistics(self) -> None:
        """With global statistics give mean and variance the running ones."""
        if self.global_statistics:
            factor = self.blobs[2].read_data(self.memory)
            divisor = self.xp.where(factor == 0, self.xp.inf, factor)  # nothing seen yet: both are 0
            for target, total in zip((self.mean, self.variance), self.blobs, strict=False):
                target.write_data(self.memory)[...] = total.read_data(self.memory) / divisor

    def enter_statistics(self, count: int) -> None:
        """Without global statistics enter mean and variance, which were computed of `count` values, into the running
        sums.
        """
        if self.global_statistics:
            return
        ranks = self.synchronised
        num_values = ranks.values_per_channel if ranks else count // self.num_channels
        if self._sums is not None:
            self._sums.enter(self.mean, self.variance, self.blobs, _unbiased(num_values))
            return
        if num_values != self._num_values:
            self._num_values = num_values
            self._numbers = self._make_numbers(num_values)
        unbiased, fraction, one = self._numbers
        mean, variance = self.mean.read_data(self.memory), self.variance.read_data(self.memory)
        for blob, value in zip(self.blobs, (mean, variance * unbiased, one), strict=True):
            total = blob.update_data(self.memory)
            total *= fraction
            total += value

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottom's gradient, through the batch's own statistics where they were used."""
        if propagate_down[0]:
            self.operation.backward(bottom[0], top[0])

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return what does this layer's work and that of a Scale or ReLU in one."""
        return fuse_with(self, behind, num_bottoms)

    def let_go(self) -> None:
        """Forget the bottom, or what was made of it."""
        self.operation.let_go()

    def _create_operation(self, spec: BatchNormSpec) -> BatchNormOperation:
        """Return the engine's operation, or that over all ranks where it is asked for and there are several."""
        ranks = self.context.communicator
        is_asked_for = self.param.dtrain_param.sync_statistics and self.phase == caffe_pb2.TRAIN
        if is_asked_for and spec.batch_statistics and ranks is not None and ranks.world_size > 1:
            self.synchronised = SynchronisedBatchNorm(spec, self.engine, ranks)
            return self.synchronised
        operation: BatchNormOperation = self.engine.create(spec)
        return operation

    def _create_sums(self) -> RunningSumsOperation | None:
        """Return what enters statistics at once, if the engine has it."""
        fraction = self.param.batch_norm_param.moving_average_fraction
        try:
            sums: RunningSumsOperation = self.engine.create_own(
                RunningSumsSpec((self.num_channels,), fraction)
            )
        except NotOffered:
            return None
        return sums

    def _make_numbers(self, num_values: int) -> list[Any]:
        """Return what the running sums are made with, as arrays without axes: numpy takes longer with a Python float
        than with the few values that it multiplies by it.
        """
        unbiased = _unbiased(num_values)
        fraction, dtype = self.param.batch_norm_param.moving_average_fraction, self.blobs[0].dtype
        numbers = (unbiased, self.mean.dtype), (fraction, dtype), (1.0, dtype)
        return [self.xp.asarray(value, of) for value, of in numbers]


def _unbiased(num_values: int) -> float:
    """Return by what the variance of so many values is multiplied."""
    return num_values / (num_values - 1) if num_values > 1 else 1.0


def _num_channels(shape: tuple[int, ...]) -> int:
    if not shape:
        raise UserError("the bottom must have an axis of items, got a scalar")
    return shape[1] if len(shape) > 1 else 1
