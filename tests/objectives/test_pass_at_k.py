"""pass@k against its definition, at sizes where tables of n by k would fill the memory."""

import math
import tracemalloc
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from maxrl_bench.objectives.binomials import pass_at_k
from maxrl_bench.training import metrics


def test_unbiased_pass_at_k_is_the_share_of_subsets_with_a_success() -> None:
    n = 7
    for c in range(n + 1):
        outcomes = [1] * c + [0] * (n - c)
        for k in range(1, n + 1):
            subsets = list(combinations(outcomes, k))
            share = Fraction(sum(any(subset) for subset in subsets), len(subsets))
            assert pass_at_k(np.array([c / n]), n, k)[0] == pytest.approx(float(share), rel=1e-13, abs=0)


def test_unbiased_pass_at_k_averages_to_the_exact_one() -> None:
    n, p = 9, 0.13
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    for k in (1, 3, 9):
        mean = float(np.dot(chances, pass_at_k(np.arange(n + 1) / n, n, k)))
        assert mean == pytest.approx(float(pass_at_k(np.array([p]), 0, k)[0]), abs=1e-14)


def test_published_example() -> None:
    """n = 8, c = 2."""
    estimates = [pass_at_k(np.array([2 / 8]), 8, k)[0] for k in (1, 2, 4, 8)]
    assert estimates == pytest.approx([0.25, 0.464286, 0.785714, 1], 1e-5)


@pytest.mark.parametrize("k", [0, 9, 1.5, -1])
def test_unbiased_pass_at_k_refuses_k_beyond_the_rollouts(k: float) -> None:
    with pytest.raises(ValueError, match="from 8 rollouts; k must be a whole number from 1 to 8"):
        pass_at_k(np.array([0.25]), 8, k)


def test_exact_pass_at_k_keeps_tiny_pass_rates_and_both_ends() -> None:
    got = pass_at_k(np.array([0.0, 1e-18, 0.25, 1.0, 1.0 + 2**-52]), 0, 2)
    assert got.tolist() == pytest.approx([0.0, 2e-18, 1 - 0.75**2, 1.0, 1.0], rel=1e-12, abs=0)


def test_no_pass_at_k_is_minus_zero() -> None:
    for n in (0, 8):
        assert not np.signbit(pass_at_k(np.zeros(1), n, 4))[0]


def test_sampled_pass_rates_are_counts_again() -> None:
    """Every c / n that six digits can hold, at n where c / n is no binary fraction."""
    for n in (3, 7, 49, 1000):
        rates = np.array([float(f"{c / n:.6g}") for c in range(n + 1)])
        np.testing.assert_allclose(pass_at_k(rates, n, 1), np.arange(n + 1) / n, atol=1e-12)


def test_pass_at_k_of_a_million_rollouts_takes_no_memory_to_speak_of() -> None:
    n = 2**20
    rates = np.linspace(0, 1, 256)
    tracemalloc.start()
    try:
        row = metrics.pass_at_k_row(rates, n)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6
    assert list(row) == [f"pass@{2**i}" for i in range(11)]
    c = int(np.rint(n * rates[1]))
    expected = float(1 - Fraction(math.comb(n - c, 3), math.comb(n, 3)))
    assert pass_at_k(rates[1:2], n, 3)[0] == pytest.approx(expected, rel=1e-12)


def test_a_row_has_no_pass_at_k_beyond_the_rollouts_and_means_not_medians() -> None:
    rates = np.array([0.0, 0.0, 1.0])
    assert metrics.pass_at_k_row(rates, 5) == pytest.approx({"pass@1": 1 / 3, "pass@2": 1 / 3, "pass@4": 1 / 3})
    assert len(metrics.pass_at_k_row(rates, 0)) == 11
