"""The table and its door: published values, edge cases, knobs and limits."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from objective_cases import all_bound, case_id, default_bound, within

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.table import OBJECTIVES, Formula, Objective, bind

ROOT = math.sqrt(3)
# s(1..4) | f(0..3) at N = 4, by hand from the formulas of the papers.
GOLDEN = {
    ("maxrl_alg1",): ([3, 1, 1 / 3, 0], [0, -1, -1, -1]),
    ("maxrl_alg1_exact",): ([4, 1, 1 / 3, 0], [0, -1, -1, -1]),
    ("maxrl_eq9",): ([4, 2, 4 / 3, 1], [0, 0, 0, 0]),
    ("maxrl_eq10",): ([3, 1, 1 / 3, 0], [-1, -1, -1, -1]),
    ("maxrl_uniform",): ([3.2, 1.2, 8 / 15, 0.2], [-0.8, -0.8, -0.8, -0.8]),
    ("grpo",): ([ROOT, 1, 1 / ROOT, 0], [0, -1 / ROOT, -1, -ROOT]),
    ("grpo", "ddof", 1): ([1.5, ROOT / 2, 0.5, 0], [0, -0.5, -ROOT / 2, -1.5]),
    ("rloo",): ([1, 2 / 3, 1 / 3, 0], [0, -1 / 3, -2 / 3, -1]),
    ("mean_baseline",): ([0.75, 0.5, 0.25, 0], [0, -0.25, -0.5, -0.75]),
    ("maxrl_order", "order", 2): ([2, 5 / 3, 4 / 3, 1], [0, 0, 0, 0]),
    ("maxrl_order_failures", "order", 2): ([1, 1, 1, 1], [-1, -2 / 3, -1 / 3, 0]),
    # (N-K)/(N-1) times, and -K/(N-1) times, the subset average's s(K) and s(K+1).
    ("maxrl_order_loo", "order", 2): ([2, 10 / 9, 4 / 9, 0], [0, -5 / 9, -8 / 9, -1]),
    ("pkpo_plain", "k", 2): ([2, 2, 2, 2], [0, 2 / 3, 4 / 3, 2]),
    ("pkpo_loo", "k", 2): ([2, 4 / 3, 2 / 3, 0], [0, 0, 0, 0]),
    # R = 1/2, 5/6, 1, 1: s = sqrt((1-R)/R); f = (1 - R - C(3-K,1)/C(3,1)) / sd.
    ("pass_at_k_training", "k", 2): ([1, 1 / math.sqrt(5), 0, 0], [0, -1 / 3, -1 / math.sqrt(5), 0]),
    ("f_grpo", "gamma", 1): ([1.125, ROOT / 4, 0.125, 0], [0, -0.375, -ROOT / 4, -0.375]),
}
# Weights at N = 8, T = k = 4 and p = 0.1, 0.5.
POPULATION = {
    "grpo": (2.3277, 1.8557),
    "maxrl_eq9": (5.6953, 1.9922),
    "maxrl_eq10": (5.6953, 1.9922),
    "maxrl_alg1": (5.2170, 1.9844),
    "maxrl_alg1_exact": (5.6953, 1.9922),
    "maxrl_order": (3.4390, 1.8750),
    "maxrl_order_failures": (3.4390, 1.8750),
    "pkpo_plain": (2.9160, 0.5),
    "pkpo_loo": (2.9160, 0.5),
    "pass_at_k_training": (0.7886, 0.2296),
    "f_grpo": (1.7698, 0.8679),
    "ml": (10, 2),
}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: "-".join(map(str, case)))
def test_weights_at_four_rollouts_by_hand(case: tuple[str, str, int]) -> None:
    objective = bind(case[0], 4, **({case[1]: case[2]} if len(case) > 1 else {}))
    np.testing.assert_allclose(objective.weights(np.arange(1, 5))[0], GOLDEN[case][0], atol=1e-14)
    np.testing.assert_allclose(objective.weights(np.arange(4))[1], GOLDEN[case][1], atol=1e-14)


def test_subset_average_at_eight_rollouts_by_hand() -> None:
    expected = [4, 22 / 7, 52 / 21, 69 / 35, 8 / 5, 4 / 3, 8 / 7, 1]
    np.testing.assert_allclose(bind("maxrl_order", 8, order=4).weights(np.arange(1, 9))[0], expected)


@pytest.mark.parametrize("objective", [o for o in default_bound(8) if o.name in POPULATION], ids=case_id)
def test_published_population_weights(objective: Objective) -> None:
    np.testing.assert_allclose(objective.population_weight(np.array([0.1, 0.5])), POPULATION[objective.name], atol=5e-5)


def test_grpo_is_the_standardised_reward() -> None:
    rewards = np.array([[1.0, 0, 0, 1, 0, 0, 0]])
    for ddof in (0, 1):
        expected = (rewards - rewards.mean()) / rewards.std(ddof=ddof)
        np.testing.assert_allclose(advantages(rewards, "grpo", ddof=ddof), expected)
    assert bind("grpo", 7).knobs == {"ddof": 0}


@pytest.mark.parametrize("objective", all_bound([1, 2, 5]), ids=case_id)
def test_every_weight_is_finite_and_nobody_s_weight_is_zero(objective: Objective) -> None:
    n = objective.num_rollouts
    on_success, on_failure = objective.weights(np.arange(n + 1))
    assert on_success.dtype == on_failure.dtype == np.float64
    assert np.isfinite(on_success).all()
    assert np.isfinite(on_failure).all()
    assert on_success[0] == 0  # K = 0: there is no success
    assert on_failure[n] == 0  # K = N: there is no failure


@pytest.mark.parametrize("objective", [o for o in default_bound(2) if not o.is_likelihood], ids=case_id)
def test_the_stated_edge_cases_hold(objective: Objective) -> None:
    n, edges = 8, objective.row.edges
    bound = next(o for o in default_bound(n) if o.name == objective.name)
    nothing, everything = bound.weights(np.array([0]))[1][0], bound.weights(np.array([n]))[0][0]
    if "all weights 0 at K = 0" in edges or "K = 0: no update" in edges or "no success in the whole batch" in edges:
        assert nothing == 0
    if "K = 0: pushes all rollouts down" in edges:
        assert nothing < 0
    stated = [
        ("at K = 0 and K = N", 0),
        ("K = N: weights 0", 0),
        ("weight 0 from K = N-k+2 on", 0),
        ("from K = N-k+1 on", 0),
        ("K = N: weight 1;", 1),
        ("K = N: weight 1/(N+1)", 1 / (n + 1)),
        ("K = N: weight k", bound.knobs.get("k")),
        ("in the whole batch", 1),  # a batch of this one instance
    ]
    ends = {value for words, value in stated if words in edges}
    assert "K = N" in edges or objective.row.pooled, "say what happens at K = N"
    assert len(ends) <= 1  # a row that somebody adds may say it in words of its own
    assert len(ends) == 1 or objective.name not in {case[0] for case in GOLDEN}
    assert all(everything == pytest.approx(value) for value in ends)
    if "N = 1: undefined" in edges:
        with pytest.raises(ValueError, match="needs at least 2 rollouts, got 1"):
            bind(objective.name, 1, **{k: within(rule, 1, 1) for k, rule in objective.row.knobs.items()})
        return
    single = next(o for o in default_bound(1) if o.name == objective.name)
    weights = [
        float(w) for pair in (single.weights(np.array([1]))[:1], single.weights(np.array([0]))[1:]) for w in pair[0]
    ]
    if "N = 1: learns nothing" in edges:
        assert weights == [0, 0]
    if "N = 1: REINFORCE" in edges:
        assert weights == [1, 0]


@pytest.mark.parametrize("objective", [o for o in default_bound(1_000_000) if not o.is_likelihood], ids=case_id)
def test_weights_of_a_million_rollouts(objective: Objective) -> None:
    on_success, on_failure = objective.weights(np.array([0, 1, 2, 1000, 500_000, 999_999, 1_000_000]))
    assert np.isfinite(on_success).all()
    assert np.isfinite(on_failure).all()


def test_the_limit_is_what_many_rollouts_approach() -> None:
    p = np.array([0.2, 0.5, 0.7])
    for objective in default_bound(1_000_000):
        if not objective.row.pooled and objective.limit(p) is not None:
            np.testing.assert_allclose(objective.population_weight(p), objective.limit(p), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "rollouts", "knobs", "message"),
    [
        ("maxrl_alg2", 8, {}, "unknown objective 'maxrl_alg2'; did you mean 'maxrl_"),
        ("xyzzy", 8, {}, "accepted: reinforce, "),
        ("reinforce", 8, {"order": 4}, "does not read the knob 'order'; accepted: no knobs"),
        ("maxrl_alg1", 8, {"order": 4}, "does not read the knob 'order'"),
        ("pkpo_plain", 8, {"order": 4}, "does not read the knob 'order'; accepted: k"),
        ("pkpo_plain", 8, {}, "objective 'pkpo_plain' needs the knob 'k' (1 to 8)"),
        ("maxrl_order", 8, {"order": 9}, "at least 1 and at most 8 (the number of rollouts), got 9"),
        ("maxrl_order", 8, {"order": 0}, "at least 1"),
        ("maxrl_order", 8, {"order": 4.0}, "must be an integer"),
        ("maxrl_order", 8, {"order": True}, "must be an integer"),
        ("maxrl_order", 8, {"order": "4"}, "must be an integer"),
        ("maxrl_order", 8, {"order": None}, "must be an integer"),
        ("pkpo_plain", 8, {"k": 9}, "at most 8"),
        ("pass_at_k_training", 8, {"k": 9}, "at most 8"),
        ("grpo", 8, {"ddof": 2}, "at least 0 and at most 1, got 2"),
        ("f_grpo", 8, {"gamma": -1.0}, "a number of at least 0, got -1.0"),
        ("f_grpo", 8, {"gamma": math.nan}, "a number of at least 0, got nan"),
        ("grpo_entropy", 8, {"coefficient": math.inf}, "got inf"),
        ("grpo_entropy", 8, {"coefficient": True}, "a number"),
        ("rloo", 1, {}, "needs at least 2 rollouts, got 1"),
        ("f_grpo", 1, {}, "needs at least 2 rollouts, got 1"),
        ("reinforce", 0, {}, "the number of rollouts must be an integer of at least 1 and at most 1048576, got 0"),
        ("reinforce", 8.0, {}, "the number of rollouts must be an integer"),
        (["grpo"], 8, {}, "unknown objective"),
    ],
)
def test_bind_refuses(name: str, rollouts: int, knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        bind(name, rollouts, **knobs)
    assert "\n" not in str(caught.value)


def test_numpy_numbers_are_numbers() -> None:
    assert bind("maxrl_order", np.int64(8), order=np.int32(4)).knobs == {"order": 4}
    assert bind("f_grpo", 8, gamma=np.float32(2)).knobs == {"gamma": 2.0}
    assert bind("f_grpo", 8, gamma=2).knobs == {"gamma": 2.0}


def test_labels_are_short_and_tell_objectives_apart() -> None:
    objectives = [objective for objective in all_bound([8]) if objective.memory is None]
    labels = [objective.label for objective in objectives]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 24
    assert [bind("maxrl_order", 8, order=4).label, bind("grpo", 8).label] == ["MaxRL T=4", "GRPO"]
    assert [bind("pkpo_plain", 8, k=4).label, bind("grpo", 8, ddof=1).label] == ["PKPO (plain) k=4", "GRPO ddof=1"]


@pytest.mark.unbiased
def test_what_only_some_objectives_have() -> None:
    bound = {objective.name: objective for objective in default_bound(8)}
    plain = {case[0] for case in GOLDEN}
    for name, has in {
        "ml": (True, 0, 0),
        "grpo_entropy": (False, 0, 0.01),
        "differential_smoothing": (False, 0.05, 0),
        "raft": (False, 0, 0),
    }.items():
        assert (bound[name].is_likelihood, bound[name].smoothing, bound[name].entropy_bonus) == has
        assert not bound[name].row.count_based
    for name in plain:
        assert (bound[name].is_likelihood, bound[name].smoothing, bound[name].entropy_bonus) == (False, 0, 0)
        assert bound[name].row.count_based


@pytest.mark.parametrize("successes", [np.array([-1]), np.array([5]), np.array([1.0]), np.array([True])])
def test_weights_refuse_what_is_not_a_count(successes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="integers from 0 to 4"):
        bind("grpo", 4).weights(successes)


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no weights"):
        bind("ml", 4).weights(np.array([1]))
    with pytest.raises(ValueError, match="whole batch"):
        bind("raft", 4).population_weight(np.array([0.5]))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bind("grpo", 4).population_weight(np.array([1.5]))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bind("grpo", 4).closed_form(np.array([np.nan]))


@pytest.mark.parametrize(
    ("knob", "value"),
    [("gamma", 10**400), ("gamma", -(10**400)), ("gamma", "1" * 5000), ("gamma", [1.0] * 100), ("gamma", 1j)],
)
def test_strange_knobs_are_refused_in_a_line_that_can_be_read(knob: str, value: object) -> None:
    with pytest.raises(ValueError, match="a number of at least 0, got ") as caught:
        bind("f_grpo", 8, **{knob: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_more_rollouts_than_cards_and_batches_hold_are_refused_everywhere() -> None:
    assert bind("maxrl_order", 2**20, order=2**20).order == 2**20
    with pytest.raises(ValueError, match="at most 1048576, got 1048577"):
        bind("grpo", 2**20 + 1)
    with pytest.raises(ValueError, match="at most 1048576, got 1000000000000"):
        bind("grpo", 10**12)
    with pytest.raises(ValueError, match="at most 1048576 "):  # all its digits
        bind("maxrl_order", 2**20, order=2**20 + 1)


@pytest.mark.parametrize("objective", [o for o in all_bound([64]) if not o.row.pooled], ids=case_id)
def test_limits_and_closed_forms_hold_at_the_ends_of_the_pass_rates(objective: Objective) -> None:
    """No NaN at 0 and 1: what is said there is what the pass rates beside it tend to (or jump from, as x^0 does)."""
    ends, beside = np.array([0.0, 1.0]), np.array([1e-14, 1 - 2**-50])
    for curve in (objective.limit, objective.closed_form):
        there = curve(ends)
        if there is None:
            continue
        assert not np.isnan(there).any()
        for end, near in zip(there, curve(beside), strict=True):
            assert (near > 1e2 and end == np.inf) or end == pytest.approx(near, rel=1e-3, abs=1e-3)


def test_limit_of_f_grpo_at_certain_success() -> None:
    """p^-1/2 (1-p)^(gamma - 1/2): infinite, one or zero at p = 1."""
    for gamma, expected in ((0.25, np.inf), (0.5, 1.0), (1.0, 0.0), (2.5, 0.0)):
        assert bind("f_grpo", 8, gamma=gamma).limit(np.array([1.0]))[0] == expected


def test_pooled_rows_scale_successes_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPG: (B N / sum of K) (r - K/N), the mean baseline over the batch's share of successes."""
    row = Formula(
        label="Pooled",
        paper="GPG",
        formula="(B N / sum K) (r - K/N)",
        edges="no success in the whole batch: no update",
        on_success=lambda K, N: 1 - K / N,
        on_failure=lambda K, N: -K / N,
        count_based=False,
        pooled=lambda K, N: np.mean(K) / N,
    )
    monkeypatch.setitem(OBJECTIVES, "pooled_baseline", row)  # type: ignore[arg-type]
    rewards = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    expected = 12 / 4 * (rewards - rewards.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(advantages(rewards, "pooled_baseline"), expected)
    nobody = advantages(np.zeros((2, 4)), "pooled_baseline")
    assert not nobody.any()
    assert not np.signbit(nobody).any()
    monkeypatch.setitem(  # type: ignore[arg-type]
        OBJECTIVES, "pooled_baseline", replace(row, on_failure=lambda K, N: -np.ones_like(K))
    )
    assert not advantages(np.zeros((2, 4)), "pooled_baseline").any()  # no success to divide by: no update


def test_messages_about_counts_and_pass_rates_are_one_short_line() -> None:
    with pytest.raises(ValueError, match="from 0 to 4 .* got 5") as counts:
        bind("grpo", 4).weights(np.full(10_000, 5))
    with pytest.raises(ValueError, match="got nan") as rates:
        bind("grpo", 4).population_weight(np.full(10_000, np.nan))
    for caught in (counts, rates):
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 120
