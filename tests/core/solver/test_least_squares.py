"""Every solver type on least squares, as Caffe tests its own (test_gradient_based_solver.cpp).

The net is p = x·w + b, the loss Σ (p − y)² / (2·N); each pass sees other items. What solvers do, alone and on
several ranks that share the items of a batch, must be what reference_updates.py does in float64. A new solver
type is a row of RULES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.dist.communicator import Communicator
from tests.core.solver import reference_updates as reference
from tests.core.solver.ranks import SEVERAL, UNDER_MPIRUN, OnRanks, is_first, shared_path, wait_for_all
from tests.core.solver.reference_updates import Settings, Weight

NUM_ITEMS, NUM_INPUTS = 8, 3  # of a batch over all ranks; of an item
NUM_PASSES = 24
MULTIPLIERS = ((1.0, 1.0), (2.0, 0.5))  # lr_mult and decay_mult of w and b


@dataclass(frozen=True)
class Rule:
    """A solver type: its formula, number of histories, and what it needs beside the defaults."""

    formula: reference.Rule
    num_histories: int
    settings: Settings
    refuses_momentum: bool = False
    takes_decay: bool = False


RULES = {
    "SGD": Rule(reference.sgd, 1, Settings()),
    "Nesterov": Rule(reference.nesterov, 1, Settings()),
    "AdaGrad": Rule(reference.ada_grad, 1, Settings(), refuses_momentum=True),
    "RMSProp": Rule(reference.rms_prop, 1, Settings(rms_decay=0.95), refuses_momentum=True),
    "AdaDelta": Rule(reference.ada_delta, 2, Settings(momentum=0.95, delta=1e-6)),
    "Adam": Rule(reference.adam, 2, Settings(momentum=0.9)),
    "AdamW": Rule(reference.adam_w, 2, Settings(momentum=0.9), takes_decay=True),
    "LARS": Rule(reference.lars, 1, Settings(trust_coefficient=0.25), takes_decay=True),
    "LAMB": Rule(reference.lamb, 2, Settings(momentum=0.9), takes_decay=True),
}


@dataclass(frozen=True)
class Case:
    """What is done with a solver. momentum: None leaves the rule's own."""

    base_lr: float = 0.1
    weight_decay: float = 0.0
    momentum: float | None = None
    clip_gradients: float = -1.0
    num_iterations: int = 1
    iter_size: int = 1
    shared: bool = False
    snapshot_at: int = 0


EVERYTHING = Case(0.01, 0.1, 0.5, 0.5, num_iterations=4)
CASES = {
    "update": Case(),
    "update, lr / 100": Case(0.001),
    "weight decay": Case(weight_decay=0.5),
    "weight decay, several iterations": Case(weight_decay=0.5, num_iterations=4),
    "momentum": Case(momentum=0.5),
    "momentum, several iterations": Case(momentum=0.5, num_iterations=4),
    "everything": EVERYTHING,
    "everything, shared": replace(EVERYTHING, shared=True),
    "everything, accumulated": replace(EVERYTHING, iter_size=3),
    "everything, accumulated, shared": replace(EVERYTHING, iter_size=3, shared=True),
    "snapshot": replace(EVERYTHING, snapshot_at=2, iter_size=2),
    "snapshot, shared": replace(EVERYTHING, snapshot_at=2, shared=True),
}

ROWS = [pytest.param(name, case, id=f"{name}-{words}") for name in RULES for words, case in CASES.items()]
if UNDER_MPIRUN:  # a few, each rule and each case among them
    ROWS = ROWS[::5]

_INPUT = 'layer {{ name: "{0}" type: "Input" top: "{0}" input_param {{ shape {{ dim: {1} dim: {2} }} }} }}'
_PRODUCT = """layer {{ name: "ip{0}" type: "InnerProduct" bottom: "x{0}" top: "p{0}"
  param {{ {1} {3} }} param {{ {2} {4} }}
  inner_product_param {{ num_output: 1 weight_filler {{ type: "gaussian" }} bias_filler {{ value: 0.5 }} }} }}"""


def net_text(num_items: int, shared: bool) -> str:
    """Return the net for num_items items; shared: two layers of one w and b see half of them each."""
    specs = [f"lr_mult: {lr} decay_mult: {decay}" for lr, decay in MULTIPLIERS]
    names = ['name: "w"', 'name: "b"'] if shared else ["", ""]
    parts = 2 if shared else 1
    lines = [_INPUT.format("y", num_items, 1)]
    for k in range(parts):
        lines.append(_INPUT.format(f"x{k}", num_items // parts, NUM_INPUTS))
        lines.append(_PRODUCT.format(k, *names, *(specs if k == 0 else ["", ""])))
    bottoms = " ".join(f'bottom: "p{k}"' for k in range(parts))
    lines.append(f'layer {{ name: "all" type: "Concat" {bottoms} top: "p" concat_param {{ axis: 0 }} }}')
    lines.append('layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }')
    return "\n".join(lines)


def make_items() -> tuple[np.ndarray, np.ndarray]:
    """Return x (pass, item, input) and y (pass, item, 1)."""
    random = np.random.default_rng(1701)
    x = random.standard_normal((NUM_PASSES, NUM_ITEMS, NUM_INPUTS))
    return x, x @ np.array([[1.0], [-2.0], [0.5]]) + random.standard_normal((NUM_PASSES, NUM_ITEMS, 1)) + 3


X, Y = make_items()


def feed(solver: Solver, iter_size: int, shared: bool) -> None:
    """Before each pass put this rank's share of that pass's items into the inputs, whichever pass it is."""
    communicator, num_fed = solver.communicator, 0

    def before(layer: int) -> None:
        nonlocal num_fed
        if layer:
            return
        k = solver.iter * iter_size + num_fed % iter_size
        num_fed += 1
        share = slice(communicator.rank, None, communicator.world_size)
        parts = np.split(X[k, share], 2 if shared else 1)
        for i, part in enumerate(parts):
            solver.net.blobs[f"x{i}"].data[...] = part
        solver.net.blobs["y"].data[...] = Y[k, share]

    solver.net.callbacks.before_forward.append(before)


def write_solver(folder: Path, name: str, rule: Rule, case: Case, world_size: int) -> tuple[str, Settings]:
    """Write the solver's file and return its path and its fields."""
    momentum = rule.settings.momentum
    if case.momentum is not None and not rule.refuses_momentum:
        momentum = case.momentum
    settings = replace(
        rule.settings,
        base_lr=case.base_lr,
        weight_decay=case.weight_decay,
        clip_gradients=case.clip_gradients,
        momentum=momentum,
    )
    extra = f"dtrain_param {{ trust_coefficient: {settings.trust_coefficient} }}" if name == "LARS" else ""
    net = net_text(NUM_ITEMS // world_size, case.shared)
    path = folder / "solver.prototxt"
    if is_first():
        path.write_text(
            f'train_net_param {{ {net} }} type: "{name}" lr_policy: "fixed" random_seed: 5 '
            f'iter_size: {case.iter_size} snapshot_prefix: "{folder}/run" {settings.text()} {extra}'
        )
    wait_for_all()
    return str(path), settings


def train(path: str, case: Case) -> Callable[[Communicator], tuple[list[np.ndarray], list[np.ndarray]]]:
    """Return the body that trains and returns (w and b before, w, b and the histories after)."""

    def make(communicator: Communicator) -> Solver:
        solver = Solver(read_recipe(path), engine=create_engine("reference"), communicator=communicator)
        feed(solver, case.iter_size, case.shared)
        return solver

    def body(communicator: Communicator) -> tuple[list[np.ndarray], list[np.ndarray]]:
        solver = make(communicator)
        before = [blob.data.copy() for blob in solver.net.params["ip0"]]
        if case.snapshot_at:
            solver.step(case.snapshot_at)
            state = solver.snapshot()
            solver.step(1)  # which the restored one does not know of
            solver.close()
            solver = make(communicator)
            solver.restore(state)
        solver.step(case.num_iterations - solver.iter)
        solver.close()
        return before, [*(blob.data for blob in solver.net.params["ip0"]), *solver.updater.history]

    return body


def expected_of(
    rule: Rule, settings: Settings, case: Case, before: list[np.ndarray], num_iterations: int
) -> list[np.ndarray]:
    """Return w, b and the histories after so many iterations, in float64."""
    weights = [
        Weight(value.astype(np.float64), *multipliers, [np.zeros(value.shape)] * rule.num_histories)
        for value, multipliers in zip(before, MULTIPLIERS, strict=True)
    ]
    w, b = weights
    for iteration in range(num_iterations):
        slopes = [np.zeros_like(w.value), np.zeros_like(b.value)]
        for k in range(iteration * case.iter_size, (iteration + 1) * case.iter_size):
            error = X[k] @ w.value.T + b.value - Y[k]
            slopes[0] = slopes[0] + error.T @ X[k] / NUM_ITEMS
            slopes[1] = slopes[1] + error.sum(axis=0) / NUM_ITEMS
        reference.update_all(
            rule.formula, settings, rule.takes_decay, weights, slopes, case.iter_size, iteration + 1
        )
    histories = [weight.history[kind] for kind in range(rule.num_histories) for weight in weights]
    return [w.value, b.value, *histories]


@pytest.mark.parametrize("world_size", [1, SEVERAL])
@pytest.mark.parametrize(("name", "case"), ROWS)
def test_step_on_least_squares_follows_the_formulas(
    tmp_path: Path, name: str, case: Case, world_size: int, on_ranks: OnRanks
) -> None:
    rule = RULES[name]
    path, settings = write_solver(shared_path(tmp_path), name, rule, case, world_size)
    for before, after in on_ranks(world_size, train(path, case)):
        expected = expected_of(rule, settings, case, before, case.num_iterations)
        assert len(after) == len(expected)
        for got, wanted in zip(after, expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-6)
        assert np.abs(after[0] - before[0]).min() > 0


def test_least_squares_has_every_solver_type() -> None:
    assert sorted(RULES) == list(UPDATE_RULES)
    for name, rule in RULES.items():
        made = UPDATE_RULES[name]
        assert (made.num_histories, made.takes_decay, made.refuses_momentum) == (
            rule.num_histories,
            rule.takes_decay,
            rule.refuses_momentum,
        )


def test_everything_clips_the_gradient() -> None:
    w, b = np.zeros((1, NUM_INPUTS)), np.full(1, 0.5)
    error = X[0] @ w.T + b - Y[0]
    norm = np.hypot(np.linalg.norm(error.T @ X[0] / NUM_ITEMS), error.mean())
    assert norm > 2 * EVERYTHING.clip_gradients
