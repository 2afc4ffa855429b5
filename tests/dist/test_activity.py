from __future__ import annotations

from dtrain.dist.activity import Activity


def test_activity_before_the_first_iteration_says_so() -> None:
    assert str(Activity()) == "before the first iteration while starting"


def test_activity_in_an_iteration_names_it() -> None:
    activity = Activity()
    activity.iteration, activity.doing = 0, 'computing layer "conv1"'
    assert str(activity) == 'at iteration 0 while computing layer "conv1"'
