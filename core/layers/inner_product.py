"""InnerProduct: a fully connected layer, y = x·Wᵀ + b."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import InnerProductSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.weighted import WeightedLayer, check_num_output


@LAYERS.register("InnerProduct")
class InnerProduct(WeightedLayer):
    """Bottom: any shape; its axes from `axis` on (1 by default) are K inputs. Top: (outer…, num_output).

    Params: weight (num_output, K), or (K, num_output) with transpose; bias (num_output). Follows caffe's
    inner_product_layer.cpp.
    """

    backward_reads_tops = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the params. Raises UserError for fields that can't be."""
        param = self.param.inner_product_param
        check_num_output(param.num_output, "inner_product_param")
        shape = bottom[0].shape
        self.axis = self.canonical_axis(param.axis, len(shape), "inner_product_param.axis")
        self.num_inputs = math.prod(shape[self.axis :])
        weight_shape = (param.num_output, self.num_inputs)
        self.add_params(weight_shape[::-1] if param.transpose else weight_shape, param.num_output, param)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError if the bottom no longer has K inputs."""
        param, shape = self.param.inner_product_param, bottom[0].shape
        num_inputs = math.prod(shape[self.axis :])
        if len(shape) < self.axis or num_inputs != self.num_inputs:
            raise UserError(
                f"the bottom must have {self.num_inputs} values from axis {self.axis} on, as the weight "
                f"{self.weight.shape} was made for, got {num_inputs} in shape {shape}"
            )
        outer = shape[: self.axis]
        top[0].reshape(*outer, param.num_output)
        has_bias = self.bias is not None
        rows = math.prod(outer)
        self.spec = InnerProductSpec(rows, num_inputs, param.num_output, has_bias, param.transpose)
        self.operations = [self.engine.create(self.spec)]
