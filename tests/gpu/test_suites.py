"""The tests of operations, layers and updates on a real GPU, which run on played devices elsewhere."""

from __future__ import annotations

import pytest

from tests.gpu.suites import NO_TESTS, Suites, find_files


@pytest.mark.parametrize("path", find_files())
def test_file_on_a_real_gpu_passes(gpus: int, suites: Suites, path: str) -> None:
    assert gpus
    verdict = suites.verdict(path)
    if verdict.code == NO_TESTS:
        pytest.skip("no test in it is for GPUs")
    if verdict.code != 0:
        pytest.fail(f"{verdict.describe()}\nall in {suites.path}", pytrace=False)
    assert " passed" in verdict.log or " skipped" in verdict.log
