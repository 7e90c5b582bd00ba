"""What objectives do to prompts: against enumeration, closed forms, and limits that are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from maxrl_bench import bind
from maxrl_bench.advice.effects import SHARED, Prompts, classes, effect, mixed, some_success
from maxrl_bench.advice.families import best_members
from maxrl_bench.advice.mixture import known
from maxrl_bench.objectives.population import Scores, second_moment

RATES = np.array([0.0, 0.02, 0.1, 0.5, 0.5, 0.93])


def sampled(name: str, n: int, p: float, rng: np.random.Generator, draws: int, **knobs: float) -> tuple[float, float]:
    """(mean of g . v / |v|^2, mean of |g|^2) of one prompt, from rollouts with explicit score vectors of norm 1.

    A score is (r - p) v plus what is left of norm 1 in a direction that no other rollout has.
    """
    successes = rng.random((draws, n)) < p
    weights = np.stack(bind(name, n, **knobs).weights(successes.sum(1)))  # [2, draws]
    a = np.where(successes, weights[0][:, None], weights[1][:, None])
    along = (a * (successes - p)).mean(1)  # in units of v
    rest = (a**2 * (1 - SHARED * (successes - p) ** 2)).sum(1) / n**2
    return float(along.mean()), float((SHARED * along**2 + rest).mean())


@pytest.mark.parametrize(("name", "p"), [*itertools.product(("grpo", "maxrl_eq10", "rloo"), (0.1, 0.6))])
def test_the_proxy_can_be_and_has_the_stated_moments(name: str, p: float) -> None:
    """Score vectors of norm 1 with a share in v exist; drawn, they have the signal and the noise that are stated."""
    n = 4
    mean, square = sampled(name, n, p, np.random.default_rng(1), 200_000)
    pull = p * (1 - p)
    objective = bind(name, n)
    assert mean == pytest.approx(float(objective.population_weight(np.array(p))) * pull, rel=0.02)
    exact = second_moment(objective, Scores(p, signal=SHARED * pull**2))
    # The formula takes E|S|^2 = 1 given the outcome; both agree.
    assert square == pytest.approx(exact, rel=0.02)


def test_signal_by_enumeration() -> None:
    for n, p in itertools.product((2, 3, 5), (0.0, 0.2, 0.7, 1.0)):
        outcomes = list(itertools.product((0, 1), repeat=n))
        chance = {o: math.prod(p if r else 1 - p for r in o) for o in outcomes}
        assert some_success(np.array(p), n) == pytest.approx(sum(c for o, c in chance.items() if any(o)))
        both = sum(c for o, c in chance.items() if any(o) and not all(o))
        assert mixed(np.array(p), n) == pytest.approx(both, abs=1e-15)


def test_shares_of_the_gradient_are_those_of_w_p_q() -> None:
    prompts = Prompts(known(RATES))
    for objective in (bind("reinforce", 8), bind("grpo", 8), bind("maxrl_eq9", 8), bind("ml", 8)):
        found = effect(objective, prompts, [1])
        weight = np.array([float(objective.population_weight(np.array(p))) if p else 0.0 for p in RATES])
        pulls = weight * RATES * (1 - RATES)
        for share, which in zip((found.hard, found.middling, found.easy), classes(RATES), strict=True):
            assert share == pytest.approx(pulls[which].sum() / pulls.sum())
        assert found.hard + found.middling + found.easy == pytest.approx(1)


def test_maximum_likelihood_has_no_bias_and_no_noise() -> None:
    found = effect(bind("ml", 8), Prompts(known(RATES)), [1])
    assert found.ml_weight == pytest.approx(1)
    assert found.ml_cosine == pytest.approx(1)
    assert found.noise == 0
    assert found.signal_to_noise == math.inf


def test_bias_of_maxrl_is_pass_at_n() -> None:
    """p w(p) = 1 - (1-p)^N: of the prompts that can be solved."""
    found = effect(bind("maxrl_eq9", 8), Prompts(known(RATES)), [1])
    assert found.ml_weight == pytest.approx(np.mean(1 - (1 - RATES[RATES > 0]) ** 8))


def test_on_prompts_that_are_alike_the_direction_is_no_question() -> None:
    prompts = Prompts(known(np.array(0.3)))
    for name in ("reinforce", "rloo", "grpo", "maxrl_alg1"):
        assert effect(bind(name, 8), prompts, [1]).ml_cosine == pytest.approx(1)


def test_the_gain_is_one_for_a_goals_own_gradient_without_noise() -> None:
    """Of maximum likelihood towards pass@1 it is the cosine of the two."""
    prompts = Prompts(known(np.array(0.3)))
    assert prompts.gain(bind("ml", 8), [1]) == pytest.approx(1)
    prompts = Prompts(known(RATES))
    p = RATES
    a, b = p * (1 - p), np.where(p > 0, 1 - p, 0)
    assert prompts.gain(bind("ml", 8), [1]) == pytest.approx(a @ b / math.sqrt((a @ a) * (b @ b)))


def test_the_gain_has_no_scale() -> None:
    prompts = Prompts(known(RATES))
    rloo, baseline = (prompts.gain(bind(name, 8), [1, 16]) for name in ("rloo", "mean_baseline"))
    assert rloo == pytest.approx(baseline)


def test_for_pass_at_1_now_the_best_member_is_of_order_1_and_for_more_it_is_higher() -> None:
    rng = np.random.default_rng(0)
    prompts = Prompts(known(rng.beta(0.4, 0.8, 60)))
    best = {ks: {m.knob: m.value for m in best_members(16, prompts, ks)} for ks in ((1,), (1, 128), (128,))}
    assert best[(1,)] == {"T": 1, "k": 1, "q": 0}
    for knob in ("T", "k", "q"):
        assert best[(1,)][knob] <= best[(1, 128)][knob] <= best[(128,)][knob]
    assert best[(128,)]["T"] == 16


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_where_nothing_can_be_learned_nothing_is_gained(rate: float) -> None:
    prompts = Prompts(known(np.array(rate)))
    for name in ("reinforce", "grpo", "maxrl_alg1", "ml"):
        found = effect(bind(name, 8), prompts, [1])
        assert found.gain == 0
        assert math.isnan(found.hard)


@pytest.mark.parametrize("name", ["grpo", "maxrl_alg1", "maxrl_uniform"])
def test_tabulated_weights_are_the_objectives(name: str) -> None:
    """Moments by table are those by formula, to rounding."""
    objective = bind(name, 16)
    prompts = Prompts(known(RATES))
    scores = [Scores(float(p), signal=SHARED * float(p * (1 - p)) ** 2) for p in RATES]
    exact = np.mean([second_moment(objective, one) for one in scores])
    assert prompts.of(objective)[1] == pytest.approx(exact, rel=1e-12)
