from __future__ import annotations

from dtrain.dist.activity import Activity
from dtrain.dist.mirror import Mirror, Reading


def test_activity_before_the_first_iteration_says_so() -> None:
    assert str(Activity()) == "before the first iteration while starting"


def test_activity_in_an_iteration_names_it() -> None:
    activity = Activity()
    activity.iteration, activity.doing = 0, 'computing layer "conv1"'
    assert str(activity) == 'at iteration 0 while computing layer "conv1"'


def test_activity_shown_in_a_mirror_is_read_there_attribute_by_attribute() -> None:
    activity, mirror = Activity(), Mirror()
    activity.iteration, activity.doing, activity.collective = 1, "before", "barrier"
    activity.show_in(mirror)
    first = mirror.read()
    assert (first.iteration, first.doing, first.collective) == (1, "before", "barrier")
    activity.iteration = 2
    activity.doing = "after"
    activity.collective = ""
    assert mirror.read() == Reading(first.changes + 3, 2, "after", "")


def test_activity_set_to_what_it_was_is_a_change() -> None:
    activity, mirror = Activity(), Mirror()
    activity.show_in(mirror)
    before = mirror.read().changes
    activity.doing = activity.doing
    activity.iteration = activity.iteration
    assert mirror.read().changes == before + 2


def test_activity_of_a_name_that_is_no_utf8_is_shown() -> None:
    activity, mirror = Activity(), Mirror()
    activity.show_in(mirror)
    activity.doing = "reading \udcff.lmdb"
    assert mirror.read().doing == "reading ?.lmdb"
