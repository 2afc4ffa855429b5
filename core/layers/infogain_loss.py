"""InfogainLoss: a logistic loss in which a matrix says how much each class counts for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.core.layers.parts.softmax_loss import SoftmaxLossLayer
from dtrain.core.paths import resolve
from dtrain.data.blob_file import read_blob_file

SMALLEST = 1e-20  # a class of smaller probability costs as much as one of this


@LAYERS.register("InfogainLoss")
class InfogainLoss(SoftmaxLossLayer):
    """A place with label y costs −Σ_c H[y, c]·log(max(p_c, 1e-20)), p = softmax(scores) along the axis.

    Bottom 0: scores, C classes along infogain_loss_param.axis (1). Bottom 1: labels 0 … C − 1, one per place.
    Bottom 2: H, C·C values; without it infogain_loss_param.source is a file with H, a BlobProto. Only the scores get
    a gradient. Tops, ignore_label and normalization: see softmax_loss.py; the old loss_param.normalize is refused.
    Follows caffe's infogain_loss_layer.cpp.
    """

    messages = ("infogain_loss_param", "softmax_param", "loss_param")

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read H, if it is a file. Raises UserError or DataError if there is neither a file nor a third bottom."""
        if self.param.loss_param.HasField("normalize"):
            raise UserError(
                "loss_param.normalize must be left out here; give normalization: VALID or BATCH_SIZE"
            )
        if len(bottom) > 2:
            return
        source = self.param.infogain_loss_param.source
        if not source:
            raise UserError(
                "infogain_loss_param.source must name a file with the matrix, got none; or give it as third bottom"
            )
        self._source = resolve(source, self.context.net_path)
        self._matrix = read_blob_file(self._source, "infogain_loss_param.source")

    def class_axis(self, num_axes: int) -> int:
        """Return the axis of the classes. Raises UserError if there is no such axis."""
        axis = self.param.infogain_loss_param.axis
        return self.canonical_axis(axis, num_axes, "infogain_loss_param.axis")

    def weight_blob(self, bottom: Sequence[Blob]) -> Blob | None:
        """Return None: the third bottom is the matrix."""
        return None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError unless labels and matrix fit the scores."""
        super().reshape(bottom, top)
        classes = self.labels.num_classes
        given = bottom[2].shape if len(bottom) > 2 else self._matrix.shape
        count = bottom[2].count if len(bottom) > 2 else self._matrix.size
        if count != classes * classes:
            where = name_bottom(self, 2) if len(bottom) > 2 else f"{self._source}: infogain_loss_param.source"
            raise UserError(
                f"{where} must have {classes} x {classes} values for {classes} classes, "
                f"got {count} in shape {given}"
            )
        if len(bottom) == 2:
            matrix = self._matrix.astype(bottom[0].dtype).reshape(classes, classes)
            self.matrix = self.xp.asarray(matrix)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss. Raises UserError for a label that is no class."""
        if len(bottom) > 2:
            self.matrix = bottom[2].read_data(self.memory).reshape(self.labels.num_classes, -1)
        p = self.read(bottom)
        logs = self.xp.log(self.xp.maximum(p, SMALLEST))
        self.write_sum(top, -(self._rows() * logs).sum(axis=1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the scores' gradient p_c·Σ_k H[y, k] − H[y, c], times loss_weight / normalizer."""
        if not propagate_down[0]:
            return
        gradient = self.labels.spread(bottom[0].write_diff(self.memory))
        sums = self.matrix.sum(axis=1)[self.labels.labels]
        self.xp.multiply(self.p, sums[:, None, :], out=gradient)
        gradient -= self._rows()
        self.weigh_gradient(top, gradient)

    def _rows(self) -> Any:
        """Return the label's row of the matrix at each place, (outer, C, inner)."""
        return self.matrix[self.labels.labels].transpose(0, 2, 1)
