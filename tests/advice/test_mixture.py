"""Pass rates behind counts: the likeliest mixture, against conditions of its optimum, moments, and simulated truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from maxrl_bench.advice import mixture
from maxrl_bench.advice.counts import Counts
from maxrl_bench.advice.mixture import infer, known


def simulated(prompts: int, attempts: int | np.ndarray, seed: int) -> tuple[np.ndarray, Counts]:
    """Pass rates and counts of prompts, a good part of them hard."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 0.8, prompts)
    n = np.broadcast_to(attempts, prompts).astype(np.int64)
    return p, Counts(rng.binomial(n, p), n)


@pytest.mark.parametrize("attempts", [1, 3, 8, 64])
def test_no_other_distribution_makes_the_counts_likelier(attempts: int) -> None:
    """By concavity: no shift of mass towards any one pass rate raises the likelihood by more than the tolerance."""
    _, counts = simulated(500, attempts, attempts)
    rates = infer(counts)
    assert rates.shares.sum() == pytest.approx(1)
    assert (rates.shares >= 0).all()
    likelihood = binom.pmf(counts.successes[:, None], attempts, rates.rates[None, :])
    gains = np.mean(likelihood / (likelihood @ rates.shares)[:, None], axis=0) - 1
    assert gains.max() < 1e-5


def test_the_mean_of_few_attempts_is_that_of_the_counts() -> None:
    """With as many attempts everywhere, the likeliest mixture fits the mean of K/n."""
    _, counts = simulated(400, 4, 0)
    rates = infer(counts)
    assert rates.mean(rates.rates) == pytest.approx(np.mean(counts.successes / 4), abs=1e-3)


def test_one_pass_rate_is_found() -> None:
    rates = infer(Counts(np.full(200, 30), np.full(200, 100)))
    assert rates.mean(rates.rates) == pytest.approx(0.3, abs=0.01)
    assert rates.mean(np.abs(rates.rates - 0.3) < 0.03) > 0.999


@pytest.mark.parametrize(("successes", "rate"), [(0, 0.0), (8, 1.0)])
def test_all_or_nothing_is_told_apart_from_certainty_by_the_interval(successes: int, rate: float) -> None:
    """1,000 prompts without a success in 8 attempts may all have a pass rate of 0.001, or none."""
    rates = infer(Counts(np.full(1000, successes), np.full(1000, 8)))
    assert rates.mean(rates.rates) == pytest.approx(rate)
    limits = rates.interval((1 - rates.rates) ** 256 + rates.rates**256)  # that 256 rollouts end all alike
    assert limits is not None
    assert limits[0] < 0.6
    assert limits[1] == pytest.approx(1)


def test_it_sees_beyond_k_over_n() -> None:
    """pass@16 from 4 attempts: the mixture is near the truth, K/n far below it."""
    p, counts = simulated(20_000, 4, 3)
    rates = infer(counts)
    truth, naive = np.mean(1 - (1 - p) ** 16), np.mean(1 - (1 - counts.successes / 4) ** 16)
    found = rates.mean(1 - (1 - rates.rates) ** 16)
    assert abs(found - truth) < 0.5 * abs(naive - truth)


def test_intervals_hold_the_truth_for_all_questions_at_once() -> None:
    """1,000 simulated prompts with known pass rates, even and uneven attempts: of 12 sets at most one misses."""
    misses = 0
    for seed, attempts in itertools.product(range(6), (8, None)):
        n = np.random.default_rng(seed).integers(2, 20, 1000) if attempts is None else attempts
        p, counts = simulated(1000, n, seed + 100)
        rates = infer(counts)
        questions = (lambda x: x, lambda x: x < 0.2, lambda x: 1 - (1 - x) ** 64, lambda x: x * (1 - x))
        for ask in questions:
            limits = rates.interval(ask(rates.rates))
            assert limits is not None
            if not limits[0] - 1e-9 <= np.mean(ask(p)) <= limits[1] + 1e-9:
                misses += 1
                break
    assert misses <= 1


def test_intervals_of_ratios_contain_the_ratio_and_narrow_with_prompts() -> None:
    widths = []
    for prompts in (200, 20_000):
        _, counts = simulated(prompts, 32, 5)
        rates = infer(counts)
        pull = rates.rates * (1 - rates.rates)
        hard = np.where(rates.rates < 0.2, pull, 0)
        limits = rates.interval(hard, pull)
        assert limits is not None
        assert limits[0] <= rates.mean(hard) / rates.mean(pull) <= limits[1]
        widths.append(limits[1] - limits[0])
    assert widths[1] < 0.5 * widths[0]


def test_counts_that_are_no_mixture_have_no_interval() -> None:
    """Half of 4 attempts, always: no mixture of binomials is so even."""
    rates = infer(Counts(np.full(1000, 2), np.full(1000, 4)))
    assert rates.interval(rates.rates) is None


def test_a_million_prompts_are_fitted_like_a_thousand_and_the_same_bits_come_out() -> None:
    _, counts = simulated(1000, 8, 0)
    many = Counts(np.tile(counts.successes, 1000), np.tile(counts.attempts, 1000))
    one, thousand, again = infer(counts), infer(many), infer(counts)
    np.testing.assert_allclose(thousand.mean(one.rates), one.mean(one.rates), rtol=1e-6)
    assert np.array_equal(one.shares, again.shares)


def test_more_different_counts_than_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand prompts, each with attempts of its own; a thousand of them are fitted."""
    monkeypatch.setattr(mixture, "_MOST_PAIRS", 1000)
    rng = np.random.default_rng(0)
    p, counts = simulated(20_000, rng.integers(1, 2000, 20_000), 1)
    rates = infer(counts)
    assert rates.mean(rates.rates) == pytest.approx(p.mean(), abs=0.04)


def test_given_pass_rates_are_taken_as_they_are() -> None:
    rates = known(np.array([0.1, 0.3, 0.1, 1.0]))
    assert rates.rates.tolist() == [0.1, 0.3, 1.0]
    assert rates.shares.tolist() == [0.5, 0.25, 0.25]
    assert rates.interval(rates.rates) is None
    p = np.random.default_rng(0).beta(0.4, 0.8, 5000)
    together = known(p)
    assert len(together.rates) < 400
    assert together.mean(together.rates) == pytest.approx(p.mean(), rel=1e-12)
    assert together.mean((1 - together.rates) ** 64) == pytest.approx(np.mean((1 - p) ** 64), abs=2e-3)
    for wrong in ([-0.1], [1.5], [np.nan], []):
        with pytest.raises(ValueError, match=r"pass rates must lie in \[0, 1\]"):
            known(np.array(wrong))
