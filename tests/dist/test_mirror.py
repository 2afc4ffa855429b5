"""What one process writes another reads: round trips, cuts, and a writer that is killed at any moment."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dtrain.dist.mirror import Mirror, Reading


def test_mirror_untouched_reads_as_starting() -> None:
    assert Mirror().read() == Reading()
    assert str(Mirror().read()) == "before the first iteration while starting"


@pytest.mark.parametrize(
    ("iteration", "doing", "collective"),
    [(None, "", ""), (0, 'computing layer "conv1"', ""), (2**40, "größer", "all_reduce")],
)
def test_mirror_read_gives_what_was_written(iteration: int | None, doing: str, collective: str) -> None:
    mirror = Mirror()
    mirror.write(iteration, doing.encode(), collective.encode())
    assert mirror.read() == Reading(1, iteration, doing, collective)


def test_mirror_written_alike_counts_as_a_change() -> None:
    mirror = Mirror()
    for _ in range(3):
        mirror.write(7, b"x", b"")
    assert mirror.read() == Reading(3, 7, "x", "")


def test_mirror_long_texts_are_cut_also_within_a_character() -> None:
    mirror = Mirror()
    mirror.write(1, ("a" + "é" * 200).encode(), b"c" * 100)
    reading = mirror.read()
    assert reading.doing == "a" + "é" * 127 + "\N{REPLACEMENT CHARACTER}"  # 256 bytes: 1 + 127 * 2 + 1
    assert reading.collective == "c" * 64


def test_mirror_exit_code_and_timeout_stay_when_the_activity_changes() -> None:
    mirror = Mirror()
    mirror.write_exit_code(0)
    mirror.write_timeout(0.0)
    mirror.write(3, b"x", b"")
    assert (mirror.read().exit_code, mirror.read().timeout_s) == (0, 0.0)
    mirror.write_exit_code(255)
    mirror.write_timeout(12.5)
    assert mirror.read() == Reading(1, 3, "x", "", 255, 12.5)


def test_mirror_left_within_a_writing_is_read_as_it_is() -> None:
    mirror = Mirror()
    mirror.write(1, "é".encode() * 128, b"")
    mirror._memory[:8] = (2).to_bytes(8, "little")
    mirror._memory[16:17] = b"x"
    assert mirror.read() == Reading(2, 1, "x\N{REPLACEMENT CHARACTER}" + "é" * 127, "")


def test_mirror_of_a_child_that_writes_all_the_time_is_read_whole() -> None:
    mirror = Mirror()
    pid = os.fork()
    if pid == 0:
        i = 0
        while True:
            i += 1
            mirror.write(i, b"a" * 256 if i % 2 else b"b" * 256, b"")
    try:
        while mirror.read().changes == 0:
            time.sleep(0.001)
        readings = [mirror.read() for _ in range(2000)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    mirror.read()  # it may have died within a writing
    whole = [reading for reading in readings if reading.doing in ("a" * 256, "b" * 256)]
    assert len(whole) > 0.5 * len(readings)  # a writer that loses its core within a writing is met as it is
    numbers = [reading.changes for reading in readings]
    assert numbers == sorted(numbers)
    assert numbers[-1] > numbers[0]
