from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from dtrain.core.errors import UserError
from dtrain.core.memory_pool import MemoryPool
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


class WholeMemory(NegatedMemory):
    """Rounds values to whole ones, and takes them from others that do."""

    name = "whole"
    rounds = True

    def from_host(self, host: NDArray[Any], storage: NDArray[Any]) -> None:
        super().from_host(np.round(host), storage)

    def take(self, source: Memory, values: Any, storage: Any) -> bool:
        if isinstance(source, WholeMemory):
            self.copies.append("taken")
            storage[...] = values
        return isinstance(source, WholeMemory)


def test_rounded_values_are_made_of_rounded_ones_and_exact_ones_of_the_host() -> None:
    tensor, one, other, exact = make_tensor([1.3, -2.8]), WholeMemory(), WholeMemory(), NegatedMemory()
    for memory in (one, other):
        assert tensor.read(memory).tolist() == [-1, 3]
    assert (one.copies, other.copies) == (["in"], ["taken"])
    assert tensor.read(exact).tolist() == (-np.float32([1.3, -2.8])).tolist()


def test_rounded_values_of_an_array_that_was_shown_are_made_of_it() -> None:
    tensor, one, other = make_tensor([1.3, -2.8]), WholeMemory(), WholeMemory()
    tensor.read(one)
    tensor.show()[0] = 7.2
    assert tensor.read(other).tolist() == [-7, 3]


def test_rounded_values_that_go_by_way_of_the_host_leave_exact_ones_there(negated: NegatedMemory) -> None:
    tensor, one, apart = Tensor((2,)), WholeMemory(), WholeMemory()
    apart.take = lambda source, values, storage: False  # type: ignore[method-assign]
    tensor.write(negated)[...] = [-1.25, 2.75]
    tensor.storage.copies[one], tensor.storage.valid = np.float32([-1, 3]), {negated, one}
    assert tensor.read(apart).tolist() == [-1, 3]
    assert tensor.read().tolist() == [1.25, -2.75]


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


def pooled_tensor(shape: tuple[int, ...], pool: MemoryPool) -> Tensor:
    tensor = Tensor(shape)
    tensor.storage.borrow_from(pool)
    return tensor


def test_tensor_of_a_pool_borrows_when_it_is_written_and_others_can_have_what_it_gives_back() -> None:
    pool = MemoryPool()
    first, second = pooled_tensor((2, 8), pool), pooled_tensor((16,), pool)
    assert pool.lent_bytes == 0
    first.write()[...] = 5
    assert pool.lent_bytes == 64
    first.storage.give_back("data of a")
    assert pool.lent_bytes == 0
    second.write()[...] = 7
    assert pool.peak_bytes == 64
    with pytest.raises(UserError, match=r"^data of a: values must be read before .*; keep all blobs"):
        first.read()
    first.write()[...] = 6
    assert (first.read() == 6).all()
    assert (second.read() == 7).all()


def test_tensor_of_a_pool_that_was_never_written_reads_as_zeros_whatever_lay_there() -> None:
    pool = MemoryPool()
    first, second = pooled_tensor((16,), pool), pooled_tensor((4, 4), pool)
    first.write()[...] = 5
    first.storage.give_back("first")
    assert second.read().tolist() == np.zeros((4, 4)).tolist()
    second.storage.give_back("second")


def test_give_back_of_a_tensor_never_written_leaves_it_so() -> None:
    tensor = pooled_tensor((3,), MemoryPool())
    tensor.storage.give_back("it")
    assert tensor.read().tolist() == [0, 0, 0]


def test_give_back_of_an_array_that_was_shown_keeps_it() -> None:
    pool = MemoryPool()
    tensor = pooled_tensor((3,), pool)
    tensor.write()[...] = 4
    held = tensor.show()
    tensor.storage.give_back("it")
    tensor.storage.drop_void()
    assert tensor.read() is held
    assert held.tolist() == [4, 4, 4]
    assert pool.lent_bytes == 64


def test_drop_void_gives_back_what_was_written_over_elsewhere(negated: NegatedMemory) -> None:
    pool = MemoryPool()
    tensor = pooled_tensor((16,), pool)
    tensor.write()[...] = 3
    tensor.write(negated)[...] = -4  # in memory of its own
    assert pool.lent_bytes == 64
    tensor.storage.drop_void()
    assert pool.lent_bytes == 0
    assert tensor.read().tolist() == [4] * 16


def test_write_elsewhere_gives_back_what_it_makes_void_when_the_pool_catches_up(
    negated: NegatedMemory,
) -> None:
    pool = MemoryPool()
    for overwrite in (Tensor.write, Tensor.update):
        tensor = pooled_tensor((16,), pool)
        tensor.write()[...] = 3
        tensor.read(negated)
        overwrite(tensor, negated)[...] = -4
        assert pool.lent_bytes == 64, "who computes may still look at it"
        pool.catch_up()
        assert pool.lent_bytes == 0
        assert tensor.read().tolist() == [4] * 16
        tensor.storage.give_back("x")


def test_read_of_one_array_in_turn_from_two_memories_sees_it_as_each_does() -> None:
    class Backwards(HostMemory):
        name = "backwards"

        def view(self, storage: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
            return super().view(storage, shape)[::-1]

    tensor, backwards = pooled_tensor((2,), MemoryPool()), Backwards()
    for _ in range(2):
        tensor.write()[...] = [1, 2]
        array = tensor.storage.copies[HOST]
        assert tensor.read().tolist() == [1, 2]
        tensor.storage.give_back("x")
        tensor.write(backwards)[...] = [3, 4]
        assert tensor.storage.copies[backwards] is array
        assert tensor.read(backwards).tolist() == [3, 4]
        assert array.tolist() == [4, 3]
        tensor.storage.give_back("x")


def test_drop_layouts_leaves_the_host_and_those_that_are_wanted(negated: NegatedMemory) -> None:
    other = NegatedMemory()
    tensor = make_tensor([1, 2])
    for memory in (negated, other):
        tensor.read(memory)
    tensor.storage.drop_layouts(but=[other])
    assert set(tensor.storage.copies) == tensor.storage.valid == {HOST, other}
    tensor.update(other)[...] = -9
    tensor.storage.drop_layouts()  # the host's are not the newest: nothing may go
    assert tensor.read().tolist() == [9, 9]


def test_reshape_of_a_tensor_of_a_pool_that_grows_borrows_more() -> None:
    pool = MemoryPool()
    tensor = pooled_tensor((16,), pool)
    tensor.reshape((64,))
    tensor.write()[...] = 1
    assert pool.lent_bytes == 256


def test_clear_lets_values_be_zero_wherever_they_are_read_next(negated: NegatedMemory) -> None:
    for memory in (HOST, negated):
        tensor = make_tensor([1, 2])
        tensor.read(negated)
        tensor.storage.clear()
        assert tensor.read(memory).tolist() == [0, 0]
        tensor.update(memory)[0] = 3
        assert abs(tensor.read()).tolist() == [3, 0]


def test_clear_writes_no_array_that_nobody_holds_until_it_is_read() -> None:
    arena, tensor = np.zeros(2, np.float32), make_tensor([1, 2])
    tensor.move_into(arena)
    tensor.storage.clear()
    assert arena.tolist() == [1, 2]
    assert tensor.update() is not arena
    assert arena.tolist() == [0, 0]


def test_clear_of_what_was_shown_shows_at_once() -> None:
    tensor = make_tensor([1, 2])
    array = tensor.show()
    tensor.storage.clear()
    assert array.tolist() == [0, 0]
    array[0] = 5
    assert tensor.read().tolist() == [5, 0]


def test_clear_of_values_given_back_lets_them_be_zero() -> None:
    pool, tensor = MemoryPool(), make_tensor([1, 2])
    tensor.storage.borrow_from(pool)
    tensor.write()[...] = 4
    tensor.storage.give_back("x")
    tensor.storage.clear()
    assert tensor.read().tolist() == [0, 0]


def test_join_overwrites_what_is_clear_and_adds_to_what_is_not(negated: NegatedMemory) -> None:
    tensor, sharer = make_tensor([1, 2]), Tensor((1, 2))
    sharer.share(tensor)
    tensor.storage.clear()
    array, is_sum = tensor.join()
    assert not is_sum
    array[...] = [3, 4]
    array, is_sum = sharer.join(negated)  # as of a param that two layers share
    assert is_sum
    array -= [[10, 20]]
    assert tensor.read().tolist() == [13, 24]
    assert negated.copies == ["in", "out"]


def test_join_of_what_was_never_written_overwrites() -> None:
    array, is_sum = Tensor((2,)).join()
    assert array.shape == (2,)
    assert not is_sum
