"""What `maxrl-bench check task thin-ice` checks, under pytest, and what only this task promises."""

import pytest
from thin_ice import ThinIce

from maxrl_bench.testing import task_checks

SUBJECT = task_checks.Subject(ThinIce)


@pytest.mark.parametrize("check", task_checks.CHECKS)
def test_it_is_a_task(check):
    check(SUBJECT)


def test_no_way_across_is_shorter_than_along_two_sides():
    batch = ThinIce(size=5).batch("test", range(8))
    assert batch.distances[batch.start].min() >= 2 * 4
