from __future__ import annotations

import gc
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.errors import UserError
from dtrain.dist.communicator import Communicator
from tests.conftest import Mpirun
from tests.core.conftest import WriteModule
from tests.core.pycaffe.conftest import GRADIENT, WEIGHTS, X, Z
from tests.core.solver.small_runs import write_database
from tests.played.cupy import play_cupy


@pytest.fixture
def solver(folder: Path) -> caffe.Solver:
    """Return the solver of solver.prototxt with WEIGHTS, X and Z."""
    return feed(caffe.get_solver("solver.prototxt"))


def feed(solver: caffe.Solver) -> caffe.Solver:
    net = solver.net
    net.params["ip"][0].data[...] = WEIGHTS
    net.params["ip"][1].data[...] = 0.5
    net.blobs["x"].data[...], net.blobs["z"].data[...] = X, Z
    return solver


def set_fields(fields: str) -> None:
    """Add fields to solver.prototxt."""
    with open("solver.prototxt", "a") as file:
        file.write(f"\n{fields}\n")


# -- which solver -------------------------------------------------------------------------------------------------

CLASSES: dict[str, type[caffe.Solver]] = {
    "SGD": caffe.SGDSolver,
    "Nesterov": caffe.NesterovSolver,
    "AdaGrad": caffe.AdaGradSolver,
    "RMSProp": caffe.RMSPropSolver,
    "AdaDelta": caffe.AdaDeltaSolver,
    "Adam": caffe.AdamSolver,
}


@pytest.mark.parametrize("name", CLASSES)
def test_get_solver_gives_an_instance_of_the_files_type(folder: Path, name: str) -> None:
    set_fields(f'type: "{name}" delta: 0.5')
    solver = caffe.get_solver("solver.prototxt")
    assert type(solver) is CLASSES[name]
    assert solver.param.type == name
    feed(solver).step(1)
    assert solver.iter == 1


@pytest.mark.parametrize("file_type", ["SGD", "Adam"])
def test_solver_of_a_class_trains_by_its_own_type(folder: Path, file_type: str) -> None:
    """The first update of AdaGrad takes rate · g / (|g| + delta) off; SGD's takes rate · g."""
    set_fields(f'type: "{file_type}" delta: 0.5')
    ada_grad, sgd = feed(caffe.AdaGradSolver("solver.prototxt")), feed(caffe.SGDSolver("solver.prototxt"))
    for solver, taken_off in ((ada_grad, GRADIENT / (np.abs(GRADIENT) + 0.5)), (sgd, GRADIENT)):
        solver.step(1)
        np.testing.assert_allclose(solver.net.params["ip"][0].data, WEIGHTS - 0.1 * taken_off, rtol=1e-5)


def test_solver_of_a_class_checks_the_file_by_its_own_type(folder: Path) -> None:
    set_fields('momentum: 0.9 type: "AdaGrad"')
    with pytest.raises(UserError, match="momentum"):
        caffe.get_solver("solver.prototxt")
    assert caffe.NesterovSolver("solver.prototxt").param.momentum == pytest.approx(0.9)


def test_solver_of_a_missing_file_is_a_runtime_error_as_in_pycaffe(folder: Path) -> None:
    for make in (caffe.get_solver, caffe.SGDSolver, caffe.Solver):
        with pytest.raises(RuntimeError, match=r"^none.prototxt: no such file"):
            make("none.prototxt")


# -- what it shows ------------------------------------------------------------------------------------------------


def test_solver_shows_its_nets_and_fields(solver: caffe.Solver) -> None:
    assert solver.net is solver.net
    assert (len(solver.test_nets), solver.iter) == (1, 0)
    assert solver.test_nets[0].outputs == ["tanh"]
    assert (solver.param.max_iter, solver.param.display, solver.param.layer_wise_reduce) == (3, 0, True)
    assert solver.lr == solver.base_lr == pytest.approx(0.1)
    assert solver.core.net.name == "two"


def test_solver_lr_follows_the_policy_and_base_lr_may_be_set(folder: Path) -> None:
    text = Path("solver.prototxt").read_text()
    Path("solver.prototxt").write_text(text.replace('"fixed"', '"step" gamma: 0.5 stepsize: 2'))
    solver = feed(caffe.get_solver("solver.prototxt"))
    solver.step(2)
    assert solver.lr == pytest.approx(0.05)
    solver.param.base_lr = 0.2
    assert (solver.base_lr, solver.lr) == (pytest.approx(0.2), pytest.approx(0.1))
    solver.base_lr = 0
    before = solver.net.params["ip"][0].data.copy()
    solver.step(1)
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, before)


# -- training -----------------------------------------------------------------------------------------------------


def test_step_updates_the_params_of_all_nets(solver: caffe.Solver) -> None:
    solver.step(1)
    weights = solver.net.params["ip"][0].data
    np.testing.assert_allclose(weights, WEIGHTS - 0.1 * GRADIENT, rtol=1e-5)
    assert solver.test_nets[0].params["ip"][0].data.tolist() == weights.tolist()


def test_apply_update_takes_off_what_the_diffs_say(solver: caffe.Solver) -> None:
    weights = solver.net.layer_dict["ip"].blobs[0]
    weights.data[...] = 0
    weights.diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(weights.data, -0.1, rtol=1e-6)
    assert solver.iter == 1


def test_a_loop_of_ones_own_trains_as_step_does(solver: caffe.Solver, folder: Path) -> None:
    other = feed(caffe.get_solver("solver.prototxt"))
    other.step(3)
    for _ in range(3):
        solver.net.clear_param_diffs()
        solver.net.forward()
        solver.net.backward()
        solver.apply_update()
    assert solver.iter == other.iter == 3
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, other.net.params["ip"][0].data)


def test_solver_snapshots_and_goes_on(folder: Path) -> None:
    solver = caffe.get_solver("solver.prototxt")
    solver.step(2)
    solver.snapshot()
    weights = solver.net.params["ip"][0].data.copy()
    other = caffe.get_solver("solver.prototxt")
    other.restore("s_iter_2.solverstate")
    assert other.iter == 2
    np.testing.assert_array_equal(other.net.params["ip"][0].data, weights)
    other.solve(None)
    assert other.iter == 3
    third = caffe.SGDSolver("solver.prototxt")
    third.solve("s_iter_2.solverstate")
    assert third.iter == 3
    np.testing.assert_array_equal(third.net.params["ip"][0].data, other.net.params["ip"][0].data)


def test_solver_starts_from_the_weights_that_its_file_names(net: caffe.Net) -> None:
    net.save("w.caffemodel")
    set_fields('weights: "w.caffemodel"')
    assert caffe.get_solver("solver.prototxt").net.params["ip"][0].data.tolist() == WEIGHTS.tolist()


def test_set_random_seed_is_for_solvers_whose_file_has_none(folder: Path) -> None:
    def weights_after(seed: int) -> list[float]:
        caffe.set_random_seed(seed)
        values: list[float] = caffe.get_solver("solver.prototxt").net.params["ip"][0].data[0].tolist()
        return values

    assert weights_after(5) == weights_after(6)
    text = Path("solver.prototxt").read_text()
    Path("solver.prototxt").write_text(text.replace("random_seed: 1", ""))
    assert weights_after(5) == weights_after(5) != weights_after(6)


# -- nets and params ----------------------------------------------------------------------------------------------


def test_nets_outlive_their_solver(solver: caffe.Solver) -> None:
    nets = [solver.net, *solver.test_nets]
    del solver
    gc.collect()
    np.testing.assert_allclose(nets[0].forward(["y"])["y"], X @ WEIGHTS.T + 0.5, rtol=1e-6)
    assert nets[1].forward(x=X, z=Z)["tanh"].shape == (2, 1)


def test_share_weights_gives_another_net_the_solvers_params(solver: caffe.Solver) -> None:
    other = caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(other)
    solver.step(1)
    assert other.params["ip"][0].data.tolist() == solver.net.params["ip"][0].data.tolist()


def test_blob_assigned_to_a_solvers_param_hands_over_its_values(solver: caffe.Solver) -> None:
    """And the param goes on learning."""
    other = caffe.Net("net.prototxt", caffe.TRAIN)
    other.params["ip"][0].data[...] = WEIGHTS + 1
    solver.net.params["ip"][0] = other.params["ip"][0]
    solver.step(1)
    gradient = ((X @ (WEIGHTS + 1).T + 0.5 - Z) / 2).T @ X
    np.testing.assert_allclose(solver.net.params["ip"][0].data, WEIGHTS + 1 - 0.1 * gradient, rtol=1e-5)
    assert other.params["ip"][0].data.tolist() == (WEIGHTS + 1).tolist()


def test_train_net_asked_to_share_anothers_params_says_how_it_goes(solver: caffe.Solver) -> None:
    with pytest.raises(
        UserError, match="a solver's train net keeps its own params; let the other net share them"
    ):
        solver.net.share_with(caffe.Net("net.prototxt", caffe.TRAIN))


def test_test_net_goes_on_after_a_test_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass reads a fixed number of batches; scripts then look at the test net by themselves."""
    monkeypatch.chdir(tmp_path)
    write_database(tmp_path / "lmdb")
    Path("net.prototxt").write_text(
        'layer { name: "data" type: "Data" top: "data" top: "label" '
        'data_param { source: "lmdb" backend: LMDB batch_size: 4 } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
    )
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 9 snapshot_prefix: "s"\n'
        "test_iter: 3 test_interval: 1"
    )
    solver = caffe.get_solver("solver.prototxt")
    solver.step(1)
    everything = caffe.Net("net.prototxt", caffe.TEST)
    batches = [everything.forward(["data"])["data"].copy() for _ in range(5)]
    for batch in (3, 4):
        np.testing.assert_array_equal(solver.test_nets[0].forward(["data"])["data"], batches[batch])


# -- callbacks ----------------------------------------------------------------------------------------------------


def test_callbacks_see_each_iteration_before_forward_and_with_its_gradients(solver: caffe.Solver) -> None:
    seen: list[tuple[str, int, float]] = []
    diff = solver.net.params["ip"][0].diff
    solver.add_callback(
        lambda: seen.append(("start", solver.iter, float(np.abs(diff).sum()))),
        lambda: seen.append(("ready", solver.iter, float(diff[0, 0]))),
    )
    solver.step(2)
    assert [(event, iteration) for event, iteration, _ in seen] == [
        *[("start", 0), ("ready", 0), ("start", 1), ("ready", 1)]
    ]
    assert seen[0][2] == seen[2][2] == 0
    assert seen[1][2] == pytest.approx(GRADIENT[0, 0], rel=1e-5)


def test_callback_that_changes_the_gradients_changes_the_update(solver: caffe.Solver) -> None:
    def halve() -> None:
        solver.net.params["ip"][0].diff[...] *= 0.5

    solver.add_callback(lambda: None, halve)
    solver.step(1)
    np.testing.assert_allclose(solver.net.params["ip"][0].data, WEIGHTS - 0.05 * GRADIENT, rtol=1e-5)


@pytest.mark.parametrize("arguments", [(lambda: None,), (None, None), (lambda: None, 3)])
def test_add_callback_of_anything_else_says_so(
    solver: caffe.Solver, arguments: tuple[Callable[[], None]]
) -> None:
    with pytest.raises(UserError, match=r"^add_callback: there must be two functions"):
        solver.add_callback(*arguments)


# -- ranks --------------------------------------------------------------------------------------------------------


def test_solver_of_another_count_than_there_are_ranks_says_so(folder: Path) -> None:
    caffe.set_solver_count(2)
    with pytest.raises(
        UserError, match=r"must be the number of ranks, 1, got 2; start the script by mpirun -np 2"
    ):
        caffe.SGDSolver("solver.prototxt")


RANKS_LAYERS = """
import caffe
import numpy as np

class OwnNumbers(caffe.Layer):
    '''Yields numbers of this rank alone: rank + 1, twice that ...'''
    def setup(self, bottom, top):
        self.next = 0
    def reshape(self, bottom, top):
        top[0].reshape(1, 2)
        top[1].reshape(1, 1)
    def forward(self, bottom, top):
        self.next += 1
        top[0].data[...] = self.next * (caffe.solver_rank() + 1)
        top[1].data[...] = caffe.solver_count()
    def backward(self, top, propagate_down, bottom):
        pass

class Weighted(caffe.Layer):
    '''loss = Sum(w * x): the gradient of w is x.'''
    def setup(self, bottom, top):
        self.blobs.add_blob(2)
    def reshape(self, bottom, top):
        top[0].reshape(1)
    def forward(self, bottom, top):
        top[0].data[0] = (self.blobs[0].data * bottom[0].data).sum()
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += top[0].diff[0] * bottom[0].data[0]
"""

RANKS_SCRIPT = """
import sys
import dtrain as caffe

solver = caffe.SGDSolver("solver.prototxt")
nccl = caffe.NCCL(solver, caffe.NCCL.new_uid())
nccl.bcast()
solver.add_callback(nccl)
solver.net.after_backward(nccl)
solver.step(2)
print(caffe.solver_rank(), caffe.solver_count(), solver.net.params["weighted"][0].data.tolist(), flush=True)
"""


def test_python_layers_learn_alike_on_two_ranks_from_each_ranks_numbers(
    write_module: WriteModule, tmp_path: Path, mpirun: Mpirun
) -> None:
    """Two iterations of SGD at 0.5: means of (1, 2) and (2, 4), so w = −0.5 · (1.5 + 3)."""
    write_module("ranks_layers", RANKS_LAYERS)
    write_module("script", textwrap.dedent(RANKS_SCRIPT))
    python = "python_param {{ module: 'ranks_layers' layer: '{}' }}".format
    Path("net.prototxt").write_text(
        f"layer {{ name: 'x' type: 'Python' top: 'x' top: 'count' {python('OwnNumbers')} }}\n"
        f"layer {{ name: 'weighted' type: 'Python' bottom: 'x' top: 'loss' loss_weight: 1 {python('Weighted')} }}\n"
    )
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.5 lr_policy: "fixed" snapshot_prefix: "s"'
    )
    run = mpirun(2, ["script.py"], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert sorted(run.stdout.splitlines()) == ["0 2 [-2.25, -2.25]", "1 2 [-2.25, -2.25]"]


@pytest.mark.parametrize("is_mode_gpu", [True, False])
def test_solver_in_mode_gpu_lets_gradients_travel_between_gpus(
    monkeypatch: pytest.MonkeyPatch, folder: Path, is_mode_gpu: bool
) -> None:
    joined: list[int | None] = []

    def join(host: Communicator, device: int | None) -> Communicator:
        joined.append(device)
        return host

    play_cupy(monkeypatch, num_devices=2)
    monkeypatch.setattr("dtrain.core.engines.GPU_ENGINES", ("cupy",))
    monkeypatch.setattr("dtrain.core.pycaffe.solver.join_gpus", join)
    caffe.set_device(1)
    if is_mode_gpu:
        caffe.set_mode_gpu()
    solver = caffe.SGDSolver("solver.prototxt")
    assert joined == [1] * is_mode_gpu
    solver.step(1)
    assert solver.iter == 1
