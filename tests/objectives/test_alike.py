"""Who is the same in expectation: found from gaps, held against population weights, and complete."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from maxrl_bench import OBJECTIVES, bind
from maxrl_bench.objectives.alike import alike, excess_noise, weighed
from maxrl_bench.objectives.population import Scores, second_moment, tabulated

RATES = np.array([0.003, 0.08, 0.31, 0.5, 0.77, 0.96])


@pytest.mark.parametrize("n", [4, 7, 16])
def test_members_of_a_group_have_proportional_weights_by_the_factor(n: int) -> None:
    groups = alike(n)
    assert len(groups) >= 5
    for members, factors in groups:
        first = members[0].population_weight(RATES)
        for one, factor in zip(members, factors, strict=True):
            np.testing.assert_allclose(one.population_weight(RATES), factor * first, rtol=1e-7, err_msg=str(one))


def test_groups_are_told_apart() -> None:
    """No two groups have proportional weights."""
    shapes = [group.members[0].population_weight(RATES) for group in alike(16)]
    for a, b in itertools.combinations(shapes, 2):
        assert not np.allclose(a / a[0], b / b[0], rtol=1e-6)


def test_every_row_is_where_it_belongs() -> None:
    groups = alike(16)

    def group_of(name: str, **knobs: float) -> set[str]:
        wanted = bind(name, 16, **knobs)
        (found,) = [group for group in groups if wanted in group.members]
        return {one.name for one in found.members}

    assert {"maxrl_eq9", "maxrl_eq10", "maxrl_alg1_exact", "maxrl_uniform"} <= group_of("maxrl_eq9")
    assert "maxrl_alg1" not in group_of("maxrl_eq9")  # of order N-1
    assert {"rloo", "mean_baseline", "nsr", "w_reinforce", "maxpo"} <= group_of("reinforce")
    assert {"pkpo_plain", "pkpo_loo", "maxpo"} == group_of("maxpo", k=4)
    assert {"maxrl_order", "power"} <= group_of("maxrl_alg1")


def test_the_list_of_rows_is_the_table_of_those_that_weigh_by_their_own_count() -> None:
    assert [one.name for one in weighed(8)] == [name for name, row in OBJECTIVES.items() if row.count_based]


def test_noise_is_at_least_the_least_and_has_no_scale() -> None:
    for one in weighed(8):
        for p in (0.01, 0.4, 0.9):
            assert excess_noise(one, p) >= 1 - 1e-12
    assert excess_noise(bind("rloo", 8), 0.3) == pytest.approx(8 / 7)
    assert excess_noise(bind("mean_baseline", 8), 0.3) == pytest.approx(8 / 7)


@pytest.mark.parametrize("name", ["grpo", "maxrl_alg1", "nsr", "ml"])
def test_a_tabulated_objective_is_the_same(name: str) -> None:
    objective = bind(name, 16)
    looked_up = tabulated(objective)
    np.testing.assert_allclose(looked_up.population_weight(RATES), objective.population_weight(RATES), rtol=1e-14)
    if name != "ml":
        scores = Scores(0.3, signal=0.01)
        assert second_moment(looked_up, scores) == pytest.approx(second_moment(objective, scores), rel=1e-14)
