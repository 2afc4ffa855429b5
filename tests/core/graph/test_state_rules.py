from __future__ import annotations

import pytest
from google.protobuf import text_format

from dtrain.core.errors import UserError
from dtrain.core.graph.state_rules import describe_state, is_included, meets
from dtrain.proto import caffe_pb2


def state_of(text: str) -> caffe_pb2.NetState:
    return text_format.Parse(text, caffe_pb2.NetState())


TRAIN, TEST = "phase: TRAIN", "phase: TEST"


@pytest.mark.parametrize(
    ("rule", "state", "expected"),
    [
        ("", TRAIN, True),
        ("", TEST, True),
        ("phase: TRAIN", TRAIN, True),
        ("phase: TRAIN", TEST, False),
        ("phase: TEST", TEST, True),
        ("phase: TEST", "", True),  # a state without a phase is a TEST state
        ("min_level: 2", "level: 1", False),
        ("min_level: 2", "level: 2", True),
        ("min_level: 1", "", False),
        ("max_level: 2", "level: 2", True),
        ("max_level: 2", "level: 3", False),
        ("max_level: -1", "", False),
        ("min_level: -3 max_level: -1", "level: -2", True),
        ("min_level: 1 max_level: 2", "level: 3", False),
        ('stage: "a"', "", False),
        ('stage: "a"', 'stage: "a"', True),
        ('stage: "a"', 'stage: "b" stage: "a"', True),
        ('stage: "a" stage: "b"', 'stage: "a"', False),
        ('stage: "a" stage: "b"', 'stage: "b" stage: "a" stage: "c"', True),
        ('not_stage: "a"', "", True),
        ('not_stage: "a"', 'stage: "a"', False),
        ('not_stage: "a" not_stage: "b"', 'stage: "c" stage: "b"', False),
        ('stage: "a" not_stage: "b"', 'stage: "a"', True),
        ('stage: "a" not_stage: "b"', 'stage: "a" stage: "b"', False),
        ('phase: TRAIN min_level: 1 stage: "a"', 'phase: TRAIN level: 1 stage: "a"', True),
        ('phase: TRAIN min_level: 1 stage: "a"', 'phase: TEST level: 1 stage: "a"', False),
    ],
)
def test_meets_of_a_rule_wants_all_its_conditions(rule: str, state: str, expected: bool) -> None:
    assert meets(state_of(state), text_format.Parse(rule, caffe_pb2.NetStateRule())) is expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("", True),
        ("include { phase: TRAIN }", True),
        ("include { phase: TEST }", False),
        ("include { phase: TEST } include { min_level: 1 }", True),
        ("include { phase: TEST } include { min_level: 2 }", False),
        ("include { }", True),
        ("exclude { phase: TEST }", True),
        ("exclude { phase: TRAIN }", False),
        ("exclude { phase: TEST } exclude { max_level: 1 }", False),
        ('exclude { stage: "a" not_stage: "b" }', True),
        ('exclude { stage: "b" }', False),
    ],
)
def test_is_included_wants_one_include_rule_or_no_exclude_rule(rules: str, expected: bool) -> None:
    layer = text_format.Parse(rules, caffe_pb2.LayerParameter())
    assert is_included(layer, state_of('phase: TRAIN level: 1 stage: "a" stage: "b"')) is expected


def test_is_included_with_both_kinds_of_rules_is_refused() -> None:
    layer = text_format.Parse("include { phase: TRAIN } exclude { phase: TEST }", caffe_pb2.LayerParameter())
    with pytest.raises(UserError, match="^a layer may have include rules or exclude rules, not both;"):
        is_included(layer, state_of(TRAIN))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (TRAIN, "TRAIN"),
        ("", "TEST"),
        ("level: 2", "TEST, level 2"),
        ('phase: TRAIN stage: "a" stage: "b"', "TRAIN, stages a b"),
        ('stage: ""', "TEST"),  # what Caffe's command line makes of an absent --stage
    ],
)
def test_describe_state_names_what_differs_from_the_default(state: str, expected: str) -> None:
    assert describe_state(state_of(state)) == expected
