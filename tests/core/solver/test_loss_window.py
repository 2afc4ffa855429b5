from __future__ import annotations

from dtrain.core.solver.loss_window import LossWindow


def test_loss_window_means_what_is_in_and_then_the_last_ones() -> None:
    window, means = LossWindow(3), []
    for loss in (6.0, 2.0, 1.0, 3.0, 5.0):
        window.add(loss)
        means.append(window.mean)
    assert means == [6, 4, 3, 2, 3]
    assert window.losses == [1, 3, 5]


def test_loss_window_without_losses_is_0() -> None:
    assert LossWindow(3).mean == 0


def test_restart_forgets_all_but_what_it_is_given() -> None:
    window = LossWindow(2)
    window.add(9)
    window.restart([1, 2])
    assert window.losses == [1, 2]
    window.add(4)
    assert window.mean == 3
    window.restart()
    assert window.losses == []
