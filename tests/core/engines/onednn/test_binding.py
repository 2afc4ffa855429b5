from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.dist.memory import ALIGNMENT_BYTES

RELU = 0x20


@pytest.fixture
def binding(onednn: Any) -> dnn.Binding:
    """Return the engine's binding."""
    found: dnn.Binding = onednn.binding
    return found


def make_relu(binding: dnn.Binding, shape: tuple[int, ...]) -> dnn.Primitive:
    """Return oneDNN's relu with slope 0.25."""
    values = binding.plain(shape)
    what = binding.describe("eltwise_forward", dnn.FORWARD, RELU, values, values, 0.25, 0.0)
    return dnn.Primitive(binding, what, {dnn.SRC: values, dnn.DST: values})


def test_primitive_run_on_one_array_after_the_other_computes_on_each(binding: dnn.Binding) -> None:
    relu = make_relu(binding, (2, 3))
    for factor in (1, 2, 1):
        x = np.array([[-4, 0, 4], [-1, 1, 2]], np.float32) * factor
        y = np.full((2, 3), np.nan, np.float32)
        relu.run(x, y)
        assert (y / factor).tolist() == [[-1, 0, 4], [-0.25, 1, 2]]


def test_primitive_after_a_run_keeps_no_array(binding: dnn.Binding) -> None:
    relu = make_relu(binding, (2, 3))
    x, y = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    relu.run(x, y)
    arrays = [weakref.ref(x), weakref.ref(y)]
    del x, y
    assert [array() for array in arrays] == [None, None]
    x, y = np.full((2, 3), 2, np.float32), np.zeros((2, 3), np.float32)  # maybe where the others were
    relu.run(x, y)
    assert (y == 2).all()


def test_primitive_run_on_an_array_that_is_too_small_is_a_bug(binding: dnn.Binding) -> None:
    with pytest.raises(AssertionError, match="does not hold what its layout takes"):
        make_relu(binding, (2, 3)).run(np.zeros(5, np.float32), np.zeros(6, np.float32))


def test_primitive_run_with_an_array_missing_is_a_bug(binding: dnn.Binding) -> None:
    with pytest.raises(ValueError, match="shorter"):
        make_relu(binding, (2, 3)).run(np.zeros(6, np.float32))


def test_descriptor_equals_one_of_the_same_layout_only(binding: dnn.Binding) -> None:
    plain = binding.plain((2, 3, 4))
    assert plain.equals(binding.plain((2, 3, 4), (12, 4, 1)))
    assert not plain.equals(binding.plain((2, 3, 4), (12, 1, 3)))
    assert not plain.equals(binding.plain((2, 4, 3)))
    assert plain.num_bytes == 96


@pytest.mark.parametrize(("of", "num_bytes"), [(dnn.FLOAT32, 24), (dnn.BF16, 12)])
def test_descriptor_knows_the_type_and_size_of_its_values(
    binding: dnn.Binding, of: int, num_bytes: int
) -> None:
    plain = binding.plain((2, 3), (), of)
    assert (plain.type, plain.num_bytes) == (of, num_bytes)
    assert plain.equals(binding.plain((2, 3))) == (of == dnn.FLOAT32)
    assert num_bytes == 6 * dnn.NUM_BYTES[of]


def test_part_of_a_plain_array_is_where_it_begins(binding: dnn.Binding) -> None:
    whole, small = binding.plain((3, 4)), binding.plain((2, 2))
    what = binding.describe(
        "reorder", binding.part(whole, (2, 2), (1, 1)), binding.engine, small, binding.engine
    )
    source, target = np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((2, 2), np.float32)
    operands = {dnn.SRC: binding.part(whole, (2, 2), (1, 1)), dnn.DST: small}
    dnn.Primitive(binding, what, operands).run(source, target)
    assert target.tolist() == [[5, 6], [9, 10]]


def test_part_across_blocks_is_not_offered(bench: Any) -> None:
    shape = (1, 32, 2, 2)
    blocked = bench.engine.layouts.descriptor(bench.memory("blocked", shape), shape)
    binding = bench.engine.binding
    binding.part(blocked, (1, 16, 2, 2), (0, 16, 0, 0))
    with pytest.raises(NotOffered):
        binding.part(blocked, (1, 16, 2, 2), (0, 8, 0, 0))


def test_describe_of_what_has_plain_loops_only_is_not_offered(binding: dnn.Binding) -> None:
    values = binding.plain((1, 3, 4, 4))
    within_channel = 0xBFF
    with pytest.raises(NotOffered):
        binding.describe(
            "lrn_forward", dnn.FORWARD, within_channel, values, values, dnn.Int64(3), 1.0, 0.75, 1.0
        )


def test_describe_of_what_can_not_be_is_a_bug(binding: dnn.Binding) -> None:
    values = binding.plain((2, 3)), binding.plain((3, 2))
    with pytest.raises(RuntimeError, match="oneDNN's eltwise_forward_primitive_desc_create must succeed"):
        binding.describe("eltwise_forward", dnn.FORWARD, RELU, *values, 0.0, 0.0)


def test_scratchpad_is_one_per_thread_and_grows(binding: dnn.Binding) -> None:
    first = binding.scratchpad(1000)
    assert binding.scratchpad(10) is binding.scratchpad(1000) is first
    assert binding.scratchpad(first.nbytes + 1).nbytes > first.nbytes
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(binding.scratchpad(1000)))
    thread.start()
    thread.join()
    assert not np.shares_memory(others[0], binding.scratchpad(1000))


def test_locate_says_where_an_array_is_also_where_one_that_is_gone_was_known(
    binding: dnn.Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dnn, "_MOST_LOCATED", 10)
    base = np.zeros(100, np.float32)
    for start in range(100):  # views that may well be new objects in an old one's place
        array = base[start:]
        for _ in range(2):
            reference, address = binding.locate(array)
            assert reference() is array
            assert address == array.ctypes.data


@pytest.mark.parametrize(("num_bytes", "count"), [(0, 0), (4, 1), (5, 2)])
def test_make_array_holds_the_bytes_and_starts_on_a_cache_line(num_bytes: int, count: int) -> None:
    array = dnn.make_array(num_bytes)
    assert array.shape == (count,)
    assert array.ctypes.data % ALIGNMENT_BYTES == 0 or count == 0


@pytest.mark.parametrize(("shape", "strides"), [((), ()), ((5,), (1,)), ((2, 3, 4), (12, 4, 1))])
def test_row_major_strides_count_values(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    assert dnn.row_major(shape) == strides
