from __future__ import annotations

import threading

from dtrain.core.caffe_state import CaffeState


def test_next_seed_after_set_seed_begins_with_it_and_repeats() -> None:
    state = CaffeState()
    state.set_seed(7)
    seeds = [state.next_seed() for _ in range(4)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    state.set_seed(7)
    assert [state.next_seed() for _ in range(4)] == seeds


def test_next_seed_without_set_seed_is_drawn() -> None:
    state = CaffeState()
    assert not state.has_seed
    assert state.next_seed() != state.next_seed()
    state.set_seed(0)
    assert state.has_seed


def test_state_of_another_thread_is_its_own() -> None:
    state, seen = CaffeState(), []
    state.solver_count, state.solver_rank, state.multiprocess = 4, 3, True
    thread = threading.Thread(
        target=lambda: seen.append((state.solver_count, state.solver_rank, state.multiprocess))
    )
    thread.start()
    thread.join()
    assert seen == [(None, 0, False)]
    assert state.solver_rank == 3
