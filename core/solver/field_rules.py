"""What must hold between the fields of a solver, beyond what the schema and its ranges say of each alone.

Asked by recipe.py, which knows the lines. Most of it is about what Caffe has no field for: a field that nothing
would look at, or that needs what is not there, is a mistake and not passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dtrain.core.errors import UserError
from dtrain.core.solver.lr_policies import LR_POLICIES, learning_rate
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.proto import caffe_pb2

Solver = caffe_pb2.SolverParameter
Mistake = tuple[str, str]
"""A field, such as base_lr or dtrain_param.min_lr, and the sentence on what is wrong with it."""

REGULARIZATIONS = ("L2", "L1")

POLICY_FIELDS = {
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma",),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
    "cosine": ("max_iter",),
    "one_cycle": ("max_iter",),
    "plateau": ("gamma",),
}

# Field of dtrain_param: what looks at it, in words, and whether that is there.
_LOOKED_AT: dict[str, tuple[str, Callable[[Solver], bool]]] = {
    "warmup_start_lr": ("a warmup_iter", lambda solver: solver.dtrain_param.warmup_iter > 0),
    "min_lr": ('lr_policy "cosine" or "plateau"', lambda solver: solver.lr_policy in ("cosine", "plateau")),
    "peak_fraction": ('lr_policy "one_cycle"', lambda solver: solver.lr_policy == "one_cycle"),
    "start_divisor": ('lr_policy "one_cycle"', lambda solver: solver.lr_policy == "one_cycle"),
    "end_divisor": ('lr_policy "one_cycle"', lambda solver: solver.lr_policy == "one_cycle"),
    "plateau_patience": ('lr_policy "plateau"', lambda solver: solver.lr_policy == "plateau"),
    "trust_coefficient": ('type "LARS"', lambda solver: solver.type == "LARS"),
    "lr_batch_size": ("an lr_scaling", lambda solver: bool(solver.dtrain_param.lr_scaling)),
    "monitor": ('lr_policy "plateau", an early_stopping_patience or keep_best', lambda s: bool(_watchers(s))),
}


def find_mistakes(solver: Solver) -> list[Mistake]:
    """Return (field, what is wrong with it) for each field of `solver` that can't be beside the others."""
    rules = (_update_rule, _regularization, _policy, _rates, _unlooked_at, _monitored, _scaled_loss)
    return [mistake for rule in rules for mistake in rule(solver)]


def watches(solver: Solver) -> bool:
    """Return whether anything in `solver` depends on how the tests come out."""
    return bool(_watchers(solver))


def _watchers(solver: Solver) -> list[tuple[str, str]]:
    """Return (field, words) of all that depends on how the tests come out."""
    found = [("lr_policy", 'lr_policy "plateau"')] if solver.lr_policy == "plateau" else []
    fields = ("early_stopping_patience", "keep_best")
    return found + [
        (f"dtrain_param.{field}", field) for field in fields if getattr(solver.dtrain_param, field)
    ]


def _update_rule(solver: Solver) -> Iterator[Mistake]:
    try:
        yield from UPDATE_RULES[solver.type].mistakes(solver)
    except UserError as error:
        yield "type", str(error)


def _regularization(solver: Solver) -> Iterator[Mistake]:
    name = solver.regularization_type
    if name not in REGULARIZATIONS:
        yield (
            "regularization_type",
            f'regularization_type must be {" or ".join(REGULARIZATIONS)}, got "{name}"',
        )


def _policy(solver: Solver) -> Iterator[Mistake]:
    name = solver.lr_policy
    try:
        LR_POLICIES[name]
    except UserError as error:
        yield "lr_policy", str(error)
        return
    missing = [field for field in POLICY_FIELDS.get(name, ()) if not solver.HasField(field)]
    steps = list(solver.stepvalue)
    if missing:
        yield "lr_policy", f'lr_policy "{name}" needs {" and ".join(missing)}'
    elif solver.gamma < 0:
        yield "gamma", f"gamma must be at least 0, got {solver.gamma:g}"
    elif name in ("step", "sigmoid") and solver.stepsize <= 0:
        yield "stepsize", f"stepsize must be greater than 0, got {solver.stepsize}"
    elif name == "plateau" and solver.gamma >= 1:
        yield "gamma", f'gamma must be less than 1 for lr_policy "plateau", got {solver.gamma:g}'
    elif name == "multistep" and steps != sorted(steps):
        yield "stepvalue", f"stepvalue must not fall from one to the next, got {', '.join(map(str, steps))}"
    else:
        yield from _last_rate(solver)


def _last_rate(solver: Solver) -> Iterator[Mistake]:
    """Find out before the run whether a rate that grows stays a number."""
    try:
        learning_rate(solver, solver.max_iter)
    except UserError as error:
        yield "lr_policy", str(error)


def _rates(solver: Solver) -> Iterator[Mistake]:
    extra = solver.dtrain_param
    if extra.min_lr > solver.base_lr:
        yield (
            "dtrain_param.min_lr",
            f"min_lr must be at most base_lr ({solver.base_lr:g}), got {extra.min_lr:g}",
        )
    if extra.HasField("lr_batch_size") and not extra.lr_batch_size:
        yield "dtrain_param.lr_batch_size", "lr_batch_size must be at least 1, got 0"
    if extra.start_divisor < 1:
        yield "dtrain_param.start_divisor", f"start_divisor must be at least 1, got {extra.start_divisor:g}"
    if extra.start_divisor * extra.end_divisor < 1:
        yield (
            "dtrain_param.end_divisor",
            "end_divisor must let the rate end below base_lr, at base_lr / (start_divisor * end_divisor); got "
            f"{extra.end_divisor:g} with a start_divisor of {extra.start_divisor:g}",
        )


def _unlooked_at(solver: Solver) -> Iterator[Mistake]:
    for field, (words, is_there) in _LOOKED_AT.items():
        if solver.dtrain_param.HasField(field) and not is_there(solver):
            yield f"dtrain_param.{field}", f"{field} is looked at with {words} alone; take it out"


def _monitored(solver: Solver) -> Iterator[Mistake]:
    """What depends on tests needs a test net."""
    num_nets, chosen = len(solver.test_iter), solver.dtrain_param.monitor.test_net
    if not num_nets:
        for field, words in _watchers(solver):
            yield field, f"{words} needs a test net, got no test_iter"
    elif chosen >= num_nets:
        yield (
            "dtrain_param.monitor.test_net",
            f"monitor's test_net must be 0 to {num_nets - 1}, as there are {num_nets} test nets, got {chosen}",
        )


def _scaled_loss(solver: Solver) -> Iterator[Mistake]:
    """Gradients are divided by the loss scale that is found with them, so they can't be those of before."""
    extra = solver.dtrain_param
    if extra.precision == caffe_pb2.FLOAT16 and extra.stale_gradients:
        yield (
            "dtrain_param.stale_gradients",
            "stale_gradients must be false with precision FLOAT16, got true; use BF16, which has no loss scale",
        )
