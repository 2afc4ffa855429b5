from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dtrain.core.engines import Promises
from dtrain.core.errors import UserError
from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.solver.recipe import Recipe, read_precision, read_recipe
from dtrain.proto import caffe_pb2

NET = """name: "{name}"
{state}
layer {{ name: "data" type: "DummyData" top: "data" dummy_data_param {{ shape {{ dim: 1 }} }} }}
layer {{ name: "train" type: "TanH" bottom: "data" top: "train" include {{ phase: TRAIN }} }}
layer {{ name: "test" type: "TanH" bottom: "data" top: "test" include {{ phase: TEST }} }}
layer {{ name: "deep" type: "TanH" bottom: "data" top: "deep" include {{ min_level: 1 }} }}
layer {{ name: "a" type: "TanH" bottom: "data" top: "a" include {{ stage: "a" }} }}
layer {{ name: "b" type: "TanH" bottom: "data" top: "b" include {{ stage: "b" }} }}
"""
RATE = 'base_lr: 0.1 lr_policy: "fixed"\n'
TESTING = "test_interval: 10\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with the nets n1 … n4."""
    monkeypatch.chdir(tmp_path)
    for name in ("n1", "n2", "n3", "n4"):
        Path(f"{name}.prototxt").write_text(NET.format(name=name, state=""))
    return tmp_path


def read(text: str, level: int | None = None, stages: Sequence[str] | None = None) -> Recipe:
    Path("solver.prototxt").write_text(RATE + text)
    return read_recipe("solver.prototxt", level=level, stages=stages)


def inner(name: str, state: str = "") -> str:
    """Return a net as it is written inside a solver file."""
    return NET.format(name=name, state=state)


def describe(net: NetRecipe) -> str:
    """Return "name: layers that are in", without data and splits."""
    names = [node.name for node in net.graph.nodes if not node.inserted and node.name != "data"]
    return f"{net.graph.name}: {' '.join(names)}"


DEEP = 'state { level: 1 stage: "a" }'


@pytest.mark.parametrize(
    ("text", "nets"),
    [
        ('net: "n1.prototxt"', ["n1: train"]),
        ('train_net: "n1.prototxt"', ["n1: train"]),
        (f"net_param {{ {inner('i1')} }}", ["i1: train"]),
        (f"train_net_param {{ {inner('i1')} }}", ["i1: train"]),
        # the common net serves as many tests as test_iter has entries
        (f'net: "n1.prototxt" {TESTING} test_iter: 3', ["n1: train", "n1: test"]),
        (f'net: "n1.prototxt" {TESTING} test_iter: [3, 4]', ["n1: train", "n1: test", "n1: test"]),
        (f"net_param {{ {inner('i1')} }} {TESTING} test_iter: 3", ["i1: train", "i1: test"]),
        (
            f'train_net: "n1.prototxt" test_net: "n2.prototxt" {TESTING} test_iter: 3',
            ["n1: train", "n2: test"],
        ),
        # in Caffe's order: those inside the solver file, those in files, the common one
        (
            f'net: "n1.prototxt" test_net: "n2.prototxt" test_net: "n3.prototxt" '
            f"test_net_param {{ {inner('i1')} }} test_net_param {{ {inner('i2')} }} "
            f"{TESTING} test_iter: [1, 2, 3, 4, 5]",
            ["n1: train", "i1: test", "i2: test", "n2: test", "n3: test", "n1: test"],
        ),
        # states
        ('net: "n1.prototxt" train_state { level: 1 stage: "a" }', ["n1: train deep a"]),
        (
            f'net: "n1.prototxt" {TESTING} test_iter: [1, 1] test_state {{ stage: "a" }} '
            'test_state { level: 2 stage: "b" stage: "a" }',
            ["n1: train", "n1: test a", "n1: test deep a b"],
        ),
        # the net's own state is below the solver's, and stages add up
        (
            f"net_param {{ {inner('i1', DEEP)} }} {TESTING} test_iter: 1 "
            'train_state { stage: "b" } test_state { level: 0 }',
            ["i1: train deep a b", "i1: test a"],
        ),
        (f"net_param {{ {inner('i1', 'state { phase: TEST }')} }}", ["i1: test"]),
        ('net: "n1.prototxt" train_state { phase: TEST }', ["n1: test"]),
        (
            f"train_net_param {{ {inner('i1')} }} test_net_param {{ {inner('i2', DEEP)} }} {TESTING} test_iter: 1 "
            'train_state { stage: "a" }',
            ["i1: train a", "i2: test deep a"],
        ),
        # states go to the test nets in Caffe's order
        (
            f'net: "n1.prototxt" test_net: "n2.prototxt" test_net_param {{ {inner("i1")} }} {TESTING} '
            'test_iter: [1, 2, 3] test_state { stage: "a" } test_state { stage: "b" } test_state { level: 1 }',
            ["n1: train", "i1: test a", "n2: test b", "n1: test deep"],
        ),
    ],
)
def test_read_recipe_has_the_nets_that_the_solver_names(folder: Path, text: str, nets: list[str]) -> None:
    recipe = read(text)
    assert [describe(net) for net in (recipe.train, *recipe.tests)] == nets


@pytest.mark.parametrize(
    ("level", "stages", "train"),
    [
        (None, None, "n1: train a"),
        (1, None, "n1: train deep a"),
        (None, ["b"], "n1: train a b"),
        (0, [""], "n1: train a"),  # as Caffe gives its flags when they are absent
    ],
)
def test_read_recipe_with_flags_puts_them_on_the_train_state_alone(
    folder: Path, level: int | None, stages: list[str] | None, train: str
) -> None:
    text = f'net: "n1.prototxt" train_state {{ stage: "a" }} {TESTING} test_iter: 1'
    recipe = read(text, level, stages)
    assert [describe(recipe.train), describe(recipe.tests[0])] == [train, "n1: test"]


def test_read_recipe_reads_a_file_once_for_all_its_nets(folder: Path) -> None:
    recipe = read(f'net: "n1.prototxt" {TESTING} test_iter: [1, 1]')
    assert recipe.train.document is recipe.tests[0].document is recipe.tests[1].document


def test_read_recipe_finds_nets_beside_the_solver_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "beside.prototxt").write_text(NET.format(name="beside", state=""))
    (folder / "sub" / "solver.prototxt").write_text(RATE + 'net: "beside.prototxt"')
    recipe = read_recipe("sub/solver.prototxt")
    assert describe(recipe.train) == "beside: train"
    assert recipe.train.document.path == "sub/beside.prototxt"


def test_read_recipe_upgrades_solver_and_net(folder: Path) -> None:
    Path("old.prototxt").write_text('input: "x" input_dim: [1, 2, 3, 4]')
    recipe = read('net: "old.prototxt" solver_type: SGD')
    assert recipe.solver.type == "SGD"
    assert not recipe.solver.HasField("solver_type")
    assert [node.param.type for node in recipe.train.graph.nodes] == ["Input"]


@pytest.mark.parametrize(
    ("field", "files"),
    [
        ("", []),
        ('weights: "a"', ["a"]),
        ('weights: "a,b"', ["a", "b"]),
        ('weights: "a, b ,"\nweights: "c"', ["a", "b", "c"]),
    ],
)
def test_recipe_weights_are_repeated_or_separated_by_commas(
    folder: Path, field: str, files: list[str]
) -> None:
    assert read(f'net: "n1.prototxt" {field}').weights == files


def test_recipe_weights_are_found_beside_the_solver_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.caffemodel").touch()
    (folder / "sub" / "solver.prototxt").write_text(
        f'{RATE} net: "n1.prototxt" weights: "a.caffemodel,/b.caffemodel,c.caffemodel"'
    )
    weights = read_recipe("sub/solver.prototxt").weights
    assert weights == ["sub/a.caffemodel", "/b.caffemodel", "c.caffemodel"]


def test_read_recipe_with_an_lr_scaling_takes_it_for_the_file_s(folder: Path) -> None:
    Path("solver.prototxt").write_text(f'{RATE} net: "n1.prototxt" dtrain_param {{ lr_batch_size: 64 }}')
    scaling = caffe_pb2.DtrainSolverParameter.LINEAR
    recipe = read_recipe("solver.prototxt", lr_scaling=scaling)
    assert recipe.solver.dtrain_param.lr_scaling == scaling
    with pytest.raises(UserError, match="lr_batch_size is looked at with an lr_scaling alone"):
        read_recipe("solver.prototxt", lr_scaling=caffe_pb2.DtrainSolverParameter.NONE)


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("", None, "FLOAT32"),
        ("precision: BF16", None, "BF16"),
        ("precision: BF16", "FLOAT32", "FLOAT32"),
        ("", "BF16", "BF16"),
    ],
)
def test_read_recipe_with_a_precision_takes_it_for_the_file_s(
    folder: Path, text: str, given: str | None, expected: str
) -> None:
    Path("solver.prototxt").write_text(f'{RATE} net: "n1.prototxt" dtrain_param {{ {text} }}')
    recipe = read_recipe("solver.prototxt", precision=given)
    assert recipe.precision == expected
    assert caffe_pb2.Precision.Name(recipe.solver.dtrain_param.precision) == expected
    assert read_precision("solver.prototxt") == ("BF16" if text else "FLOAT32")


@pytest.mark.parametrize(
    ("text", "promises"),
    [
        ("", Promises()),
        ("strict_float32: true", Promises(strict_float32=True)),
        ("deterministic: true", Promises(deterministic=True)),
    ],
)
def test_promises_of_a_recipe_are_its_files(folder: Path, text: str, promises: Promises) -> None:
    assert read(f'net: "n1.prototxt" dtrain_param {{ {text} }}').promises == promises


def test_read_recipe_with_a_solver_type_takes_it_for_the_file_s(folder: Path) -> None:
    Path("solver.prototxt").write_text(f'{RATE} net: "n1.prototxt" type: "Nesterov" momentum: 0.5')
    assert read_recipe("solver.prototxt", solver_type="Adam").solver.type == "Adam"
    with pytest.raises(UserError, match='solver.prototxt:2: momentum must be 0 for type "AdaGrad"'):
        read_recipe("solver.prototxt", solver_type="AdaGrad")


ONE_OF = "solver.prototxt: exactly one of net, net_param, train_net and train_net_param must be given, got "
ITERS = "solver.prototxt: test_iter must be given once per test net, got "


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("max_iter: 1", [ONE_OF + "none"]),
        (f'net: "n1.prototxt" net_param {{ {inner("i1")} }}', [ONE_OF + "net, net_param"]),
        (
            f"net_param {{ {inner('i1')} }} train_net_param {{ {inner('i2')} }}",
            [ONE_OF + "net_param, train_net_param"],
        ),
        # every test net has a test_iter of its own, those inside the solver file too
        (f'net: "n1.prototxt" test_net: "n2.prototxt" {TESTING}', [ITERS + "0 for 1 test nets"]),
        (
            f'train_net: "n1.prototxt" test_net: "n2.prototxt" test_net_param {{ {inner("i1")} }} {TESTING} '
            "test_iter: 1",
            [ITERS + "1 for 2 test nets"],
        ),
        (f'train_net: "n1.prototxt" {TESTING} test_iter: 1', [ITERS + "1 for 0 test nets"]),
        (
            f'net: "n1.prototxt" {TESTING} test_iter: 1\ntest_state {{ }} test_state {{ }}',
            ["solver.prototxt:4: test_state must be given for each of the 1 test nets or for none, got 2"],
        ),
        (
            'net: "n1.prototxt"\ndtrain_param {\n  min_lr: 0.01 }',
            ["solver.prototxt:4: min_lr is looked at with lr_policy"],
        ),
        (
            'net: "n1.prototxt"\ndtrain_param {\n  keep_best: 1 }',
            ["solver.prototxt:4: keep_best needs a test net, got no test_iter"],
        ),
        ('net: "n1.prototxt" train_net: "n2.prototxt"', [ONE_OF + "net, train_net"]),
        (
            'net: "n1.prototxt"\ntest_iter: 3',
            ["solver.prototxt:3: test_iter needs a test_interval, got none"],
        ),
        (
            f'train_net: "n1.prototxt" test_net: "n2.prototxt" {TESTING} test_iter: [1, 2]',
            [ITERS + "2 for 1 test nets"],
        ),
        (
            f'net: "n1.prototxt" test_net: "n2.prototxt" test_net: "n3.prototxt" {TESTING} test_iter: 1',
            [ITERS + "1 for 2 test nets"],
        ),
        (
            f'net: "n1.prototxt" {TESTING} test_iter: [1, 2]\ntest_state {{ }}',
            ["solver.prototxt:4: test_state must be given for each of the 2 test nets or for none, got 1"],
        ),
        (
            'max_iter: 1\nnet: "n5.prototxt"',
            ['solver.prototxt:3: n5.prototxt: no such file; did you mean "n1.prototxt"'],
        ),
        ('type: "SGD"\nsolver_type: SGD', ["solver.prototxt:3: give type or solver_type, not both"]),
    ],
)
def test_read_recipe_of_a_mistaken_solver_says_where(folder: Path, text: str, problems: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert len(caught.value.problems) == len(problems)
    for problem, expected in zip(caught.value.problems, problems, strict=True):
        assert problem.startswith(expected)


def test_read_recipe_collects_the_mistakes_of_all_files(folder: Path) -> None:
    Path("bad.prototxt").write_text(
        'layer { name: "a" type: "TanH" bottom: "x" top: "a" }\n'
        'layer { name: "b" type: "TanH" bottom: "y" top: "b" include { phase: TEST } }'
    )
    Path("worse.prototxt").write_text("layer { nam: 1 }\nlayer { typ: 2 }")
    Path("solver.prototxt").write_text(
        'base_lr: 1 net: "bad.prototxt" test_net: "worse.prototxt"\n test_interval: 1 test_iter: [1, 2]'
    )
    with pytest.raises(UserError) as caught:
        read_recipe("solver.prototxt")
    places = [problem.split(": ")[0] for problem in caught.value.problems]
    assert places == [
        "solver.prototxt",  # no lr_policy
        "bad.prototxt:1",
        "worse.prototxt:1",
        "worse.prototxt:2",
        "bad.prototxt:2",  # a layer of the TEST net alone; the other mistake of that file is not repeated
    ]


def test_read_recipe_of_a_net_inside_the_solver_names_the_solver_s_lines(folder: Path) -> None:
    text = 'train_net_param {\n  layer { name: "a" type: "TanH"\n    bottom: "x" top: "a" }\n}'
    with pytest.raises(
        UserError, match=r'^solver.prototxt:3: layer "a": bottom "x" is produced by no earlier'
    ):
        read(text)


def test_read_recipe_without_base_lr_and_lr_policy_asks_for_both(folder: Path) -> None:
    Path("solver.prototxt").write_text('net: "n1.prototxt"')
    with pytest.raises(UserError) as caught:
        read_recipe("solver.prototxt")
    assert caught.value.problems == (
        "solver.prototxt: base_lr must be given",
        "solver.prototxt: lr_policy must be given",
    )


def test_read_recipe_checks_the_names_in_the_solver_with_their_lines(folder: Path) -> None:
    Path("solver.prototxt").write_text(
        'net: "n1.prototxt" base_lr: 1\nlr_policy: "stepp"\ntype: "SGDD"\ntest_iter: 1'
    )
    with pytest.raises(UserError) as caught:
        read_recipe("solver.prototxt")
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "solver.prototxt:4: test_iter needs a test_interval, got none",
        'solver.prototxt:3: unknown solver type "SGDD"',
        'solver.prototxt:2: unknown lr_policy "stepp"',
    ]


def test_recipe_keeps_the_solver_and_its_path(folder: Path) -> None:
    recipe = read('net: "n1.prototxt" max_iter: 7')
    assert recipe.path == "solver.prototxt"
    assert recipe.solver is recipe.document.message
    assert isinstance(recipe.solver, caffe_pb2.SolverParameter)
    assert recipe.solver.max_iter == 7
