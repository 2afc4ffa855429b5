"""The value rules that caffe.proto cannot say: one table, checked on every field that a prototxt sets.

Only what makes Caffe abort, or what makes no sense, stands here. Rules between several fields, and names that
a registry knows (layer types, fillers, lr policies), are checked by the stages that use them: graph, net and
solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Value = bool | int | float | str | bytes


@dataclass(frozen=True)
class Rule:
    """Pair a condition on a field's value with the words that complete "must be …"."""

    text: str
    holds: Callable[[Value], bool]


def _number_rule(text: str, holds: Callable[[float], bool]) -> Rule:
    return Rule(text, lambda value: isinstance(value, int | float) and holds(value))


def _at_least(low: int) -> Rule:
    return _number_rule(f"at least {low}", lambda value: low <= value < math.inf)


_COUNT = _at_least(1)
_NOT_NEGATIVE = _at_least(0)
_NOT_POSITIVE = _number_rule("at most 0", lambda value: -math.inf < value <= 0)
_AT_LEAST_MINUS_1 = _at_least(-1)
_POSITIVE = _number_rule("greater than 0", lambda value: 0 < value < math.inf)
_FINITE = _number_rule("a finite number", math.isfinite)
_FRACTION = _number_rule("0 to 1", lambda value: 0 <= value <= 1)
_BELOW_1 = _number_rule("at least 0 and less than 1", lambda value: 0 <= value < 1)
_ODD = _number_rule("odd", lambda value: value % 2 == 1)
_LOG_BASE = _number_rule("greater than 0, or -1 for e", lambda value: value == -1 or 0 < value < math.inf)
_PENALTY = Rule('"L1" or "L2"', lambda value: value in ("L1", "L2"))

# Message: rule: fields. "Parent.field" in place of a message's name is a rule for that place alone.
_TABLE: dict[str, dict[Rule, str]] = {
    "SolverParameter": {
        _COUNT: "test_iter iter_size average_loss",
        _NOT_NEGATIVE: "test_interval max_iter display snapshot stepsize stepvalue base_lr gamma weight_decay delta",
        _BELOW_1: "momentum momentum2 rms_decay",
        _FINITE: "power",
        _PENALTY: "regularization_type",
    },
    "DtrainSolverParameter": {
        _COUNT: "plateau_patience",
        _NOT_NEGATIVE: "warmup_start_lr min_lr trust_coefficient",
        _POSITIVE: "start_divisor end_divisor",
        _FRACTION: "peak_fraction",
        _BELOW_1: "ema_decay",
    },
    "DtrainLayerParameter": {_BELOW_1: "label_smoothing", _NOT_NEGATIVE: "class_weight"},
    "MonitorParameter": {_NOT_NEGATIVE: "min_delta"},
    "NetParameter": {_NOT_NEGATIVE: "input_dim"},
    "LayerParameter": {_FINITE: "loss_weight"},
    "ParamSpec": {_FINITE: "lr_mult decay_mult"},
    "BlobShape": {_NOT_NEGATIVE: "dim"},
    "ReshapeParameter.shape": {_AT_LEAST_MINUS_1: "dim"},
    "FillerParameter": {_FINITE: "value min max mean", _NOT_NEGATIVE: "std", _AT_LEAST_MINUS_1: "sparse"},
    "TransformationParameter": {_FINITE: "scale mean_value"},
    "DataParameter": {_COUNT: "batch_size prefetch"},
    "ImageDataParameter": {_COUNT: "batch_size"},
    "HDF5DataParameter": {_COUNT: "batch_size"},
    "MemoryDataParameter": {_COUNT: "batch_size channels height width"},
    "WindowDataParameter": {_COUNT: "batch_size", _FRACTION: "fg_threshold bg_threshold fg_fraction"},
    "ConvolutionParameter": {
        _COUNT: "num_output kernel_size kernel_h kernel_w stride stride_h stride_w dilation group"
    },
    "InnerProductParameter": {_COUNT: "num_output"},
    "EmbedParameter": {_COUNT: "num_output input_dim"},
    "RecurrentParameter": {_COUNT: "num_output"},
    "PoolingParameter": {_COUNT: "kernel_size kernel_h kernel_w stride stride_h stride_w"},
    "SPPParameter": {_COUNT: "pyramid_height"},
    "LRNParameter": {_ODD: "local_size", _FINITE: "alpha beta k"},
    "BatchNormParameter": {_FRACTION: "moving_average_fraction", _POSITIVE: "eps"},
    "MVNParameter": {_POSITIVE: "eps"},
    "DropoutParameter": {_BELOW_1: "dropout_ratio"},
    "ExpParameter": {_LOG_BASE: "base"},
    "LogParameter": {_LOG_BASE: "base"},
    "SliceParameter": {_COUNT: "slice_point"},
    "TileParameter": {_COUNT: "tiles"},
    "AccuracyParameter": {_COUNT: "top_k"},
    "ArgMaxParameter": {_COUNT: "top_k"},
    "FocalLossParameter": {_NOT_NEGATIVE: "gamma", _POSITIVE: "alpha"},
    "InterpParameter": {_COUNT: "zoom_factor shrink_factor", _NOT_POSITIVE: "pad_beg pad_end"},
    "LayerNormParameter": {_POSITIVE: "eps"},
    "NormalizeParameter": {_NOT_NEGATIVE: "eps"},
    "PSROIPoolingParameter": {_COUNT: "output_dim group_size", _POSITIVE: "spatial_scale"},
    "ROIPoolingParameter": {_COUNT: "pooled_h pooled_w", _POSITIVE: "spatial_scale"},
    "ShuffleChannelParameter": {_COUNT: "group"},
    "SmoothL1LossParameter": {_POSITIVE: "sigma"},
    "UpsampleParameter": {_COUNT: "scale scale_h scale_w upsample_h upsample_w"},
    "V1LayerParameter": {_FINITE: "blobs_lr weight_decay loss_weight"},
    "V0LayerParameter": {
        _COUNT: "num_output kernelsize stride group batchsize",
        _ODD: "local_size",
        _BELOW_1: "dropout_ratio",
        _FINITE: "blobs_lr weight_decay",
    },
}

RULES: dict[str, Rule] = {
    f"{message}.{field}": rule
    for message, fields_of_rule in _TABLE.items()
    for rule, fields in fields_of_rule.items()
    for field in fields.split()
}


def rule_for(message: str, field: str, container: str = "") -> Rule | None:
    """Find the rule for a field's values, or None.

    Arguments:
        message: the message's name without its package, such as ``BlobShape``.
        field: the field in it.
        container: where the message stands, such as ``ReshapeParameter.shape``; its own rule comes first.
    """
    return RULES.get(f"{container}.{field}") or RULES.get(f"{message}.{field}")
