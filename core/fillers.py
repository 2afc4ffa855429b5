"""Fillers: how a param gets its first values.

n below is the fan of a param: FAN_IN = count / shape[0], FAN_OUT = count / shape[1], AVERAGE of both
(`variance_norm`). Follows caffe's filler.hpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.core.registry import Registry
from dtrain.proto import caffe_pb2

Values = NDArray[np.floating[Any]]
Filler = Callable[[Values, caffe_pb2.FillerParameter, np.random.Generator], None]

FILLERS: Registry[Filler] = Registry("filler")


def fill(values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator) -> None:
    """Overwrite `values` as `param` says, drawing from `random`.

    Raises UserError: unknown filler type; `sparse` with another filler than gaussian; a shape that the filler
    can't fill.
    """
    filler = FILLERS[param.type]
    if param.sparse != -1 and param.type != "gaussian":
        raise UserError(f'filler "{param.type}": sparse is for the gaussian filler only, got {param.sparse}')
    if values.size == 0:
        raise UserError(f'filler "{param.type}": the param has no values, its shape is {values.shape}')
    filler(values, param, random)


@FILLERS.register("constant")
def fill_constant(values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator) -> None:
    """Fill with `value`."""
    values[...] = param.value


@FILLERS.register("uniform")
def fill_uniform(values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator) -> None:
    """Fill from U[min, max)."""
    if param.min > param.max:
        raise UserError(f'filler "uniform": min must be at most max, got min {param.min} and max {param.max}')
    values[...] = random.uniform(param.min, param.max, values.shape)


@FILLERS.register("gaussian")
def fill_gaussian(values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator) -> None:
    """Fill from N(mean, std²); with sparse ≥ 0 a value is kept with probability sparse / shape[0], else 0."""
    num_items = _num_items(values)
    if param.sparse > num_items:
        raise UserError(
            f'filler "gaussian": sparse must be at most {num_items}, the first length of {values.shape}, '
            f"got {param.sparse}"
        )
    values[...] = random.normal(param.mean, param.std, values.shape)
    if param.sparse >= 0:
        values *= random.random(values.shape) < param.sparse / num_items


@FILLERS.register("positive_unitball")
def fill_positive_unitball(
    values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator
) -> None:
    """Fill from U[0, 1), then divide each item (axis 0) by its sum."""
    num_items = _num_items(values)
    drawn = random.random((num_items, values.size // num_items))
    values[...] = (drawn / drawn.sum(axis=1, keepdims=True)).reshape(values.shape)


@FILLERS.register("xavier")
def fill_xavier(values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator) -> None:
    """Fill from U[−a, a) with a = sqrt(3 / n) (Glorot and Bengio, 2010)."""
    bound = math.sqrt(3.0 / fan(values.shape, param.variance_norm))
    values[...] = random.uniform(-bound, bound, values.shape)


@FILLERS.register("msra")
def fill_msra(values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator) -> None:
    """Fill from N(0, 2 / n) (He et al., 2015)."""
    values[...] = random.normal(0.0, math.sqrt(2.0 / fan(values.shape, param.variance_norm)), values.shape)


@FILLERS.register("bilinear")
def fill_bilinear(values: Values, param: caffe_pb2.FillerParameter, random: np.random.Generator) -> None:
    """Fill each K×K filter with bilinear interpolation weights: (1 − |x/f − c|)·(1 − |y/f − c|),
    f = ceil(K/2), c = (K − 1)/(2f).
    """
    if values.ndim != 4 or values.shape[2] != values.shape[3]:
        raise UserError(f'filler "bilinear": the param must be (N, C, K, K), got {values.shape}')
    size = values.shape[3]
    factor = math.ceil(size / 2.0)
    centre = (size - 1) / (2.0 * factor)
    weights = 1 - np.abs(np.arange(size) / factor - centre)
    values[...] = np.outer(weights, weights)


def _num_items(values: Values) -> int:
    """Return the length of axis 0; a scalar is one item."""
    return values.shape[0] if values.ndim else 1


def fan(shape: tuple[int, ...], norm: int) -> float:
    """Return the n of a param of `shape` for the variance norm `norm`."""
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1.0
    fan_out = count / shape[1] if len(shape) > 1 else float(count)
    if norm == caffe_pb2.FillerParameter.FAN_OUT:
        return fan_out
    if norm == caffe_pb2.FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2.0
    return fan_in
