"""What `maxrl-bench check objective capped_maxrl` checks, under pytest, and what only this objective promises."""

import numpy as np
import pytest
from capped_maxrl import objective, on_success

from maxrl_bench.testing import objective_checks


@pytest.mark.parametrize("check", objective_checks.CHECKS)
def test_it_is_an_objective(check):
    check(objective)


def test_rare_successes_are_capped():
    assert on_success(np.array([1.0, 2.0, 16.0]), 16, cap=4.0).tolist() == [4, 4, 1]
