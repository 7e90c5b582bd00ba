import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch

from maxrl_bench import metrics


def test_unbiased_pass_at_k_is_the_share_of_subsets_with_a_success() -> None:
    n = 7
    for c in range(n + 1):
        outcomes = [1] * c + [0] * (n - c)
        for k in range(1, n + 1):
            subsets = list(combinations(outcomes, k))
            share = Fraction(sum(any(subset) for subset in subsets), len(subsets))
            assert metrics.pass_at_k_unbiased(np.array([c]), n, k)[0] == pytest.approx(float(share), abs=1e-14)


def test_unbiased_pass_at_k_averages_to_the_exact_one() -> None:
    n, p = 9, 0.13
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    for k in (1, 3, 9):
        mean = float(np.dot(chances, metrics.pass_at_k_unbiased(np.arange(n + 1), n, k)))
        assert mean == pytest.approx(float(metrics.pass_at_k_exact(np.array([p]), k)[0]), abs=1e-14)


@pytest.mark.parametrize("k", [0, 9])
def test_unbiased_pass_at_k_refuses_k_beyond_the_rollouts(k: int) -> None:
    with pytest.raises(ValueError, match="from 8 rollouts"):
        metrics.pass_at_k_unbiased(np.array([2]), 8, k)


def test_exact_pass_at_k_keeps_tiny_pass_rates_and_both_ends() -> None:
    got = metrics.pass_at_k_exact(np.array([0.0, 1e-18, 0.25, 1.0, 1.0 + 2**-52]), 2)
    assert got.tolist() == pytest.approx([0.0, 2e-18, 1 - 0.75**2, 1.0, 1.0], rel=1e-12, abs=0)


def test_cosine_of_parallel_opposite_and_zero_vectors() -> None:
    a = torch.tensor([3.0, 4.0])
    assert metrics.cosine(a, 2 * a) == pytest.approx(1.0)
    assert metrics.cosine(a, -a) == pytest.approx(-1.0)
    assert metrics.cosine(a, torch.tensor([-4.0, 3.0])) == pytest.approx(0.0)
    assert math.isnan(metrics.cosine(a, torch.zeros(2)))


def test_share_of_the_harder_half() -> None:
    norms, rates = np.array([1.0, 5.0, np.nan, 2.0, 2.0]), np.array([0.9, 0.1, 0.0, 0.2, 0.8])
    assert metrics.share_of_harder_half(norms, rates) == pytest.approx((5 + 2) / 10)
    odd = np.array([1.0, 5.0, 2.0])  # a half of three is rounded down
    assert metrics.share_of_harder_half(odd, np.array([0.9, 0.1, 0.2])) == pytest.approx(5 / 8)
    assert np.isnan(metrics.share_of_harder_half(np.zeros(4), rates[:4]))
    assert np.isnan(metrics.share_of_harder_half(np.full(5, np.nan), rates))
