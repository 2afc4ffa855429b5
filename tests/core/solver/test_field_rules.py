from __future__ import annotations

import pytest
from google.protobuf import text_format

from dtrain.core.solver.field_rules import POLICY_FIELDS, find_mistakes, watches
from dtrain.core.solver.lr_policies import LR_POLICIES
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.proto import caffe_pb2

POLICIES, TYPES = ", ".join(LR_POLICIES), ", ".join(UPDATE_RULES)
TESTED = "test_interval: 1 test_iter: 1"
PLATEAU = 'lr_policy: "plateau" gamma: 0.1'


def solver_of(text: str) -> caffe_pb2.SolverParameter:
    policy = "" if "lr_policy" in text else 'lr_policy: "fixed"'
    return text_format.Parse(f"base_lr: 0.5 {policy} {text}", caffe_pb2.SolverParameter())


@pytest.mark.parametrize(
    "text",
    [
        "",
        'lr_policy: "step" gamma: 0 stepsize: 1',
        'lr_policy: "exp" gamma: 1.5 max_iter: 200',
        'lr_policy: "inv" gamma: 1 power: -0.5',
        'lr_policy: "multistep" gamma: 2 stepvalue: [3, 3, 4]',
        'lr_policy: "poly" power: 1 max_iter: 0',
        'lr_policy: "sigmoid" gamma: 1 stepsize: 3',
        'lr_policy: "cosine" max_iter: 5 dtrain_param { min_lr: 0.5 }',
        'lr_policy: "one_cycle" max_iter: 5 dtrain_param { start_divisor: 2 end_divisor: 0.5 }',
        f"{PLATEAU} {TESTED} dtrain_param {{ plateau_patience: 3 min_lr: 0.1 }}",
        f"{TESTED} dtrain_param {{ early_stopping_patience: 3 monitor {{ min_delta: 1 }} }}",
        f"{TESTED} dtrain_param {{ keep_best: 1 monitor {{ test_net: 0 }} keep_last: 2 }}",
        "dtrain_param { warmup_iter: 3 warmup_start_lr: 0.1 ema_decay: 0.9 }",
        "dtrain_param { lr_scaling: LINEAR lr_batch_size: 256 }",
        'type: "AdaGrad" momentum: 0',
        'type: "RMSProp" rms_decay: 0',
        'type: "AdaDelta" momentum: 0.95',
        'type: "LARS" momentum: 0.9 dtrain_param { trust_coefficient: 0.01 }',
        'type: "AdamW" weight_decay: 0.1 regularization_type: "L2"',
        'regularization_type: "L1"',
    ],
)
def test_find_mistakes_of_fields_that_fit_is_nothing(text: str) -> None:
    assert find_mistakes(solver_of(text)) == []


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ('type: "SGDD"', "type", f'unknown solver type "SGDD"; did you mean "SGD"?; known: {TYPES}'),
        (
            "dtrain_param { lr_batch_size: 256 }",
            "dtrain_param.lr_batch_size",
            "lr_batch_size is looked at with an lr_scaling alone; take it out",
        ),
        (
            "dtrain_param { lr_scaling: SQRT lr_batch_size: 0 }",
            "dtrain_param.lr_batch_size",
            "lr_batch_size must be at least 1, got 0",
        ),
        (
            'lr_policy: "stepp"',
            "lr_policy",
            f'unknown lr_policy "stepp"; did you mean "step"?; known: {POLICIES}',
        ),
        (
            'regularization_type: "L3"',
            "regularization_type",
            'regularization_type must be L2 or L1, got "L3"',
        ),
        # update rules
        ('type: "AdaGrad" momentum: 0.9', "momentum", 'momentum must be 0 for type "AdaGrad", got 0.9'),
        ('type: "RMSProp" momentum: 0.5', "momentum", 'momentum must be 0 for type "RMSProp", got 0.5'),
        ('type: "RMSProp" rms_decay: 1', "rms_decay", "rms_decay must be at least 0 and less than 1, got 1"),
        (
            'type: "RMSProp" rms_decay: -0.5',
            "rms_decay",
            "rms_decay must be at least 0 and less than 1, got -0.5",
        ),
        *(
            (
                f'type: "{name}" regularization_type: "L1"',
                "regularization_type",
                f'regularization_type must be L2 for type "{name}", which applies weight_decay itself, got "L1"',
            )
            for name in ("AdamW", "LARS", "LAMB")
        ),
        # policies
        ('lr_policy: "step"', "lr_policy", 'lr_policy "step" needs gamma and stepsize'),
        ('lr_policy: "step" gamma: 0.1', "lr_policy", 'lr_policy "step" needs stepsize'),
        ('lr_policy: "exp"', "lr_policy", 'lr_policy "exp" needs gamma'),
        ('lr_policy: "inv" power: 1', "lr_policy", 'lr_policy "inv" needs gamma'),
        ('lr_policy: "multistep" stepvalue: 3', "lr_policy", 'lr_policy "multistep" needs gamma'),
        ('lr_policy: "poly" power: 1', "lr_policy", 'lr_policy "poly" needs max_iter'),
        ('lr_policy: "sigmoid" stepsize: 1', "lr_policy", 'lr_policy "sigmoid" needs gamma'),
        ('lr_policy: "cosine"', "lr_policy", 'lr_policy "cosine" needs max_iter'),
        ('lr_policy: "one_cycle"', "lr_policy", 'lr_policy "one_cycle" needs max_iter'),
        (f'lr_policy: "plateau" {TESTED}', "lr_policy", 'lr_policy "plateau" needs gamma'),
        ('lr_policy: "exp" gamma: -1', "gamma", "gamma must be at least 0, got -1"),
        ('lr_policy: "step" gamma: 1 stepsize: 0', "stepsize", "stepsize must be greater than 0, got 0"),
        ('lr_policy: "sigmoid" gamma: 1 stepsize: -2', "stepsize", "stepsize must be greater than 0, got -2"),
        (
            'lr_policy: "multistep" gamma: 0.1 stepvalue: [5, 3]',
            "stepvalue",
            "stepvalue must not fall from one to the next, got 5, 3",
        ),
        (
            f'lr_policy: "plateau" gamma: 1 {TESTED}',
            "gamma",
            'gamma must be less than 1 for lr_policy "plateau", got 1',
        ),
        (
            'lr_policy: "exp" gamma: 1.5 max_iter: 10000',
            "lr_policy",
            'lr_policy "exp" must give a learning rate that float32 can hold, got inf at iteration 10000; '
            "see gamma (1.5) and power (0)",
        ),
        # rates
        (
            'lr_policy: "cosine" max_iter: 5 dtrain_param { min_lr: 0.75 }',
            "dtrain_param.min_lr",
            "min_lr must be at most base_lr (0.5), got 0.75",
        ),
        (
            'lr_policy: "one_cycle" max_iter: 5 dtrain_param { start_divisor: 0.5 }',
            "dtrain_param.start_divisor",
            "start_divisor must be at least 1, got 0.5",
        ),
        (
            'lr_policy: "one_cycle" max_iter: 5 dtrain_param { start_divisor: 2 end_divisor: 0.25 }',
            "dtrain_param.end_divisor",
            "end_divisor must let the rate end below base_lr, at base_lr / (start_divisor * end_divisor); "
            "got 0.25 with a start_divisor of 2",
        ),
        # nothing would look at the field
        (
            "dtrain_param { warmup_start_lr: 0.1 }",
            "dtrain_param.warmup_start_lr",
            "warmup_start_lr is looked at with a warmup_iter alone; take it out",
        ),
        (
            "dtrain_param { min_lr: 0.1 }",
            "dtrain_param.min_lr",
            'min_lr is looked at with lr_policy "cosine" or "plateau" alone; take it out',
        ),
        *(
            (
                f"dtrain_param {{ {field}: 1 }}",
                f"dtrain_param.{field}",
                f'{field} is looked at with lr_policy "{policy}" alone; take it out',
            )
            for field, policy in (
                ("peak_fraction", "one_cycle"),
                ("start_divisor", "one_cycle"),
                ("end_divisor", "one_cycle"),
                ("plateau_patience", "plateau"),
            )
        ),
        (
            "dtrain_param { trust_coefficient: 1 }",
            "dtrain_param.trust_coefficient",
            'trust_coefficient is looked at with type "LARS" alone; take it out',
        ),
        (
            f"{TESTED} dtrain_param {{ monitor {{ }} }}",
            "dtrain_param.monitor",
            'monitor is looked at with lr_policy "plateau", an early_stopping_patience or keep_best alone; '
            "take it out",
        ),
        # what depends on tests
        (PLATEAU, "lr_policy", 'lr_policy "plateau" needs a test net, got no test_iter'),
        (
            "dtrain_param { early_stopping_patience: 1 }",
            "dtrain_param.early_stopping_patience",
            "early_stopping_patience needs a test net, got no test_iter",
        ),
        (
            "dtrain_param { keep_best: 1 }",
            "dtrain_param.keep_best",
            "keep_best needs a test net, got no test_iter",
        ),
        (
            "test_interval: 1 test_iter: [1, 1] dtrain_param { keep_best: 1 monitor { test_net: 2 } }",
            "dtrain_param.monitor.test_net",
            "monitor's test_net must be 0 to 1, as there are 2 test nets, got 2",
        ),
    ],
)
def test_find_mistakes_of_a_field_that_cannot_be_names_it(text: str, field: str, problem: str) -> None:
    assert find_mistakes(solver_of(text)) == [(field, problem)]


def test_find_mistakes_finds_all_of_them() -> None:
    solver = solver_of(
        'type: "RMSProp" momentum: 1 rms_decay: 2 lr_policy: "plateau" regularization_type: "L0" '
        "dtrain_param { trust_coefficient: 1 }"
    )
    assert [field for field, _ in find_mistakes(solver)] == [
        "momentum",
        "rms_decay",
        "regularization_type",
        "lr_policy",
        "dtrain_param.trust_coefficient",
        "lr_policy",
    ]


def test_policy_fields_are_of_known_policies() -> None:
    assert set(POLICY_FIELDS) == set(LR_POLICIES) - {"fixed"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        (PLATEAU, True),
        ("dtrain_param { early_stopping_patience: 2 }", True),
        ("dtrain_param { keep_best: 2 }", True),
        ("dtrain_param { keep_last: 2 ema_decay: 0.5 monitor { } }", False),
    ],
)
def test_watches_is_true_where_something_depends_on_the_tests(text: str, expected: bool) -> None:
    assert watches(solver_of(text)) is expected
