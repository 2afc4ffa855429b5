from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dtrain.dist.claim import FORGOTTEN_S, FRESH_S, Claim


def make_older(path: Path, age_s: float) -> None:
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_claim_taken_by_many_at_once_is_given_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: Claim("job", tmp_path).take(), range(64)))
    assert sum(taken) == 1


def test_claim_is_taken_while_it_is_fresh(tmp_path: Path) -> None:
    claim = Claim("job", tmp_path)
    assert not claim.is_taken()
    assert claim.take()
    assert Claim("job", tmp_path).is_taken()
    assert not Claim("another", tmp_path).is_taken()
    make_older(claim.path, FRESH_S + 1)
    assert not claim.is_taken()


def test_claim_given_back_can_be_taken_by_another(tmp_path: Path) -> None:
    claim = Claim("job", tmp_path)
    claim.give_back()  # of one that was never taken: nothing
    assert claim.take()
    claim.give_back()
    assert not claim.is_taken()
    assert Claim("job", tmp_path).take()


def test_claim_of_another_job_is_its_own(tmp_path: Path) -> None:
    assert Claim("job/../1", tmp_path).take()
    assert Claim("job/../2", tmp_path).take()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("age_s", "taken"), [(FRESH_S - 10, False), (FRESH_S + 1, True)])
def test_claim_left_by_an_earlier_launch_counts_only_while_fresh(
    tmp_path: Path, age_s: float, taken: bool
) -> None:
    claim = Claim("job", tmp_path)
    assert claim.take()
    make_older(claim.path, age_s)
    assert claim.take() is taken


def test_claim_removes_forgotten_claims_and_nothing_else(tmp_path: Path) -> None:
    forgotten, recent, foreign = (
        Claim("old", tmp_path),
        Claim("recent", tmp_path),
        tmp_path / "foreign.failed",
    )
    assert forgotten.take()
    assert recent.take()
    foreign.touch()
    for path in (forgotten.path, foreign):
        make_older(path, FORGOTTEN_S + 1)
    claim = Claim("new", tmp_path)
    assert claim.take()
    assert set(tmp_path.iterdir()) == {recent.path, foreign, claim.path}


def test_claim_without_a_usable_folder_is_always_given(tmp_path: Path) -> None:
    claim = Claim("job", tmp_path / "missing")
    assert claim.take()
    assert claim.take()
