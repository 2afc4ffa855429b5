from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from dtrain.core.tensor import HOST, HostMemory, Memory, Tensor


class NegatedMemory(Memory):
    """Keeps values negated and notes every copy, so that a missing or needless one shows."""

    name = "negated"

    def __init__(self) -> None:
        self.copies: list[str] = []

    def allocate(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        return np.zeros(count, dtype)

    def view(self, storage: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        return storage[: int(np.prod(shape))].reshape(shape)

    def from_host(self, host: NDArray[Any], storage: NDArray[Any]) -> None:
        self.copies.append("in")
        storage[...] = -host

    def to_host(self, storage: NDArray[Any], host: NDArray[Any]) -> None:
        self.copies.append("out")
        host[...] = -storage


@pytest.fixture
def negated() -> NegatedMemory:
    return NegatedMemory()


def make_tensor(values: list[float]) -> Tensor:
    tensor = Tensor((len(values),))
    tensor.write()[...] = values
    return tensor


def test_tensor_never_written_reads_as_zeros_without_a_copy(negated: NegatedMemory) -> None:
    tensor = Tensor((2, 3))
    assert tensor.read(negated).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert negated.copies == []


def test_read_elsewhere_copies_once(negated: NegatedMemory) -> None:
    tensor = make_tensor([1, 2])
    for _ in range(2):
        assert tensor.read(negated).tolist() == [-1, -2]
        assert tensor.read().tolist() == [1, 2]
    assert negated.copies == ["in"]


def test_write_elsewhere_copies_when_the_host_reads(negated: NegatedMemory) -> None:
    tensor = make_tensor([1, 2])
    tensor.write(negated)[...] = [-3, -4]
    assert negated.copies == []
    assert tensor.read().tolist() == [3, 4]
    assert negated.copies == ["out"]


def test_update_starts_from_the_newest_values_and_voids_the_other_copy(negated: NegatedMemory) -> None:
    tensor = make_tensor([1, 2])
    tensor.update(negated)[0] = -9
    assert tensor.read().tolist() == [9, 2]
    tensor.update()[1] = 5
    assert tensor.read(negated).tolist() == [-9, -5]
    assert negated.copies == ["in", "out", "in"]


def test_values_go_from_one_memory_to_another_by_way_of_the_host(negated: NegatedMemory) -> None:
    other, tensor = NegatedMemory(), make_tensor([0, 0])
    tensor.write(negated)[...] = [-1, -2]
    assert tensor.read(other).tolist() == [-1, -2]
    assert (negated.copies, other.copies) == (["out"], ["in"])


def test_values_go_between_two_host_memories() -> None:
    other, tensor = HostMemory(), make_tensor([1, 2])
    tensor.update(other)[0] = 8
    assert tensor.read(HOST).tolist() == [8, 2]


def test_show_lets_later_changes_of_the_array_reach_other_memories(negated: NegatedMemory) -> None:
    tensor = make_tensor([1, 2])
    array = tensor.show()
    assert tensor.read(negated).tolist() == [-1, -2]
    array[0] = 5
    assert tensor.read(negated).tolist() == [-5, -2]


def test_refresh_brings_values_to_the_array_that_was_shown(negated: NegatedMemory) -> None:
    tensor = make_tensor([1, 2])
    array = tensor.show()
    tensor.write(negated)[...] = [-7, -8]
    assert tensor.read(negated).tolist() == [-7, -8]
    assert array.tolist() == [1, 2]
    tensor.refresh()
    assert array.tolist() == [7, 8]
    assert negated.copies == ["out"]


def test_refresh_of_what_nobody_was_shown_copies_nothing(negated: NegatedMemory) -> None:
    tensor = make_tensor([1, 2])
    tensor.write(negated)
    tensor.refresh()
    assert negated.copies == []


def test_share_shows_one_run_of_values_under_two_shapes(negated: NegatedMemory) -> None:
    tensor, flat = Tensor((2, 2)), Tensor((4,))
    flat.share(tensor)
    flat.write(negated)[...] = [-1, -2, -3, -4]
    assert tensor.read().tolist() == [[1, 2], [3, 4]]


def test_share_of_another_count_is_a_bug() -> None:
    with pytest.raises(AssertionError, match=r"cannot share \(3,\) as \(2,\)"):
        Tensor((2,)).share(Tensor((3,)))


def test_reshape_to_fewer_values_keeps_memory_and_to_more_starts_from_zeros() -> None:
    tensor = make_tensor([1, 2, 3, 4])
    tensor.reshape((1, 2))
    assert tensor.read().tolist() == [[1, 2]]
    tensor.reshape((2, 2))
    assert tensor.read().tolist() == [[1, 2], [3, 4]]
    tensor.reshape((5,))
    assert tensor.read().tolist() == [0, 0, 0, 0, 0]


def test_move_into_an_arena_keeps_the_values_and_writes_there(negated: NegatedMemory) -> None:
    tensor, arena = make_tensor([0, 0]), np.zeros(5, np.float32)
    tensor.write(negated)[...] = [-1, -2]
    tensor.move_into(arena[2:4])
    assert arena.tolist() == [0, 0, 1, 2, 0]
    tensor.write(negated)[...] = [-6, -7]
    tensor.read()
    assert arena.tolist() == [0, 0, 6, 7, 0]


def test_move_into_a_slice_of_another_size_is_a_bug() -> None:
    with pytest.raises(AssertionError, match=r"a tensor of 2 values does not fit \(3,\)"):
        make_tensor([1, 2]).move_into(np.zeros(3, np.float32))
