from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.errors import UserError


def test_type_lists_hold_what_a_prototxt_may_name() -> None:
    assert {"Convolution", "Data", "Python", "MemoryData", "SoftmaxWithLoss"} <= set(caffe.layer_type_list())
    assert "SGD" in caffe.solver_type_list()


def test_phases_are_caffes_numbers() -> None:
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)


def test_mode_cpu_is_taken_and_what_needs_a_gpu_is_a_sentence() -> None:
    caffe.set_mode_cpu()
    assert not caffe.has_nccl()
    with pytest.raises(RuntimeError, match=r"^set_mode_gpu: .*; call set_mode_cpu\(\) instead$"):
        caffe.set_mode_gpu()
    with pytest.raises(RuntimeError, match=r"^set_device: .*, got 3; leave the call out"):
        caffe.set_device(3)


def test_solver_count_and_rank_are_what_was_set_in_this_thread() -> None:
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank()) == (4, 3)
    seen = []
    thread = threading.Thread(target=lambda: seen.append((caffe.solver_count(), caffe.solver_rank())))
    thread.start()
    thread.join()
    assert seen == [(1, 0)]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: caffe.set_solver_count(0), "set_solver_count: the count must be at least 1, got 0"),
        (lambda: caffe.set_solver_rank(-1), "set_solver_rank: the rank must be at least 0, got -1"),
    ],
)
def test_solver_count_and_rank_out_of_range_say_so(call: Callable[[], None], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == problem
