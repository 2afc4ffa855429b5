"""Which layers of a net are in: the rules of `include` and `exclude` on phase, level and stage.

Follows caffe's net.cpp (FilterNet, StateMeetsRule).
"""

from __future__ import annotations

from dtrain.core.errors import UserError
from dtrain.proto import caffe_pb2


def meets(state: caffe_pb2.NetState, rule: caffe_pb2.NetStateRule) -> bool:
    """Return whether `state` meets every condition that `rule` sets."""
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


def is_included(layer: caffe_pb2.LayerParameter, state: caffe_pb2.NetState) -> bool:
    """Return whether `layer` is in a net of `state`: without include rules unless an exclude rule is met, with
    them if one is met. Raises UserError if the layer has both kinds.
    """
    if layer.include and layer.exclude:
        raise UserError("a layer may have include rules or exclude rules, not both; remove one kind")
    if layer.include:
        return any(meets(state, rule) for rule in layer.include)
    return not any(meets(state, rule) for rule in layer.exclude)


def describe_state(state: caffe_pb2.NetState) -> str:
    """Return `state` in words for messages: TEST, level 1, stages a b."""
    words = [caffe_pb2.Phase.Name(state.phase)]
    if state.level:
        words.append(f"level {state.level}")
    if any(state.stage):
        words.append("stages " + " ".join(stage for stage in state.stage if stage))
    return ", ".join(words)
