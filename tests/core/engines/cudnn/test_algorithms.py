from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cudnn import algorithms
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.algorithms import Choice, Geometry, Operand, Pass
from dtrain.core.engines.engine import NotOffered
from tests.core.engines.cudnn.conftest import Bench
from tests.played import cudnn_convolution as played

GEOMETRY = Geometry((1, 1), (0, 0), (1, 1), 1, "float32")
SHAPES = (2, 3, 5, 5), (4, 3, 2, 2), (2, 4, 4, 4)


def make_pass(bench: Bench) -> Pass:
    assert bench.played.handles == set() or bench.played.calls["Create"] == 1  # of this thread
    binding = bench.engine.binding
    described = (
        binding.tensor(SHAPES[0], "float32"),
        binding.filter(SHAPES[1], "float32"),
        binding.tensor(SHAPES[2], "float32"),
    )
    operands = (Operand(shape, one, False) for shape, one in zip(SHAPES, described, strict=True))
    return Pass(bench.engine, "Forward", GEOMETRY, *operands)


def arrays(bench: Bench) -> list[Any]:
    return [bench.engine.xp.asarray(bench.normal(*shape).astype(np.float32)) for shape in SHAPES]


def test_choose_takes_the_fastest_whose_workspace_is_within_the_limit(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    assert make_pass(bench).choose(*arrays(bench)) == Choice(1, 0, 4096, 0.25)


def test_choose_within_a_small_limit_takes_a_slower_one(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(workspace_bytes=4095)
    assert make_pass(bench).choose(*arrays(bench)) == Choice(0, 0, 0, 0.5)


def test_choose_measures_once_in_a_process(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    for _ in range(2):
        one = make_pass(bench)
        for _ in range(2):
            one.run(*arrays(bench))
    assert bench.played.calls["FindConvolutionForwardAlgorithmEx"] == 1
    bench.engine.workspace_bytes = 0
    make_pass(bench).run(*arrays(bench))
    assert bench.played.calls["FindConvolutionForwardAlgorithmEx"] == 2


def test_choose_deterministic_ones_asks_the_heuristics(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(is_deterministic=True)
    assert make_pass(bench).choose(*arrays(bench)) == Choice(0, 0, 0)
    assert bench.played.calls["FindConvolutionForwardAlgorithmEx"] == 0


def test_choose_without_an_algorithm_is_not_offered(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(played, "TIMES_MS", {2: 0.1})
    for is_deterministic in (False, True):
        bench = make_bench(is_deterministic=is_deterministic)
        with pytest.raises(NotOffered, match=r"Forward of Geometry\(.*\) within a workspace of \d+ bytes"):
            make_pass(bench).choose(*arrays(bench))


def test_run_adds_to_what_is_there_which_measuring_leaves_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    x, weight, y = arrays(bench)
    before, alone = y.get(), bench.engine.xp.zeros_like(y)
    make_pass(bench).run(x, weight, y, adds=True)
    make_pass(bench).run(x, weight, alone)
    assert bench.played.calls["FindConvolutionForwardAlgorithmEx"] == 1
    np.testing.assert_allclose(y.get(), before + alone.get(), rtol=1e-6, atol=1e-6)


def test_run_with_less_memory_than_the_limit_measures_with_what_there_is(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    empty, error = bench.engine.xp.empty, bench.engine.xp.cuda.memory.OutOfMemoryError

    def make_little(shape: Any, dtype: Any = float) -> Any:
        if isinstance(shape, int) and shape > 1000 and dtype is np.uint8:
            raise error("there are 1000 bytes")
        return empty(shape, dtype)

    monkeypatch.setattr(bench.engine.xp, "empty", make_little)
    one = make_pass(bench)
    x, weight, y = arrays(bench)
    one.run(x, weight, y)
    assert one.choose(x, weight, y).algorithm == 0
    assert np.isfinite(y.get()).all()


def test_choose_takes_room_to_measure_that_the_engine_does_not_keep(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    choice = make_pass(bench).choose(*arrays(bench))
    assert choice.num_bytes > 1
    assert bench.engine.lend(0).nbytes == 1


@pytest.mark.parametrize(
    ("precision", "allows_tf32", "asked"),
    [
        ("FLOAT32", True, dnn.DEFAULT_MATH),
        ("FLOAT32", False, dnn.EXACT_MATH),
        ("BF16", True, dnn.TENSOR_MATH),
    ],
)
def test_pass_asks_for_the_math_of_the_engine(
    make_bench: Callable[..., Bench], precision: str, allows_tf32: bool, asked: int
) -> None:
    bench = make_bench(precision, allows_tf32=allows_tf32)
    one = make_pass(bench)
    number = one.convolution._as_parameter_.value
    assert bench.played.things[number].numbers["math"] == asked
    assert not algorithms.FOUND
