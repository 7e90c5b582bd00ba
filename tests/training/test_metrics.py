import math

import numpy as np
import pytest
import torch

from maxrl_bench.storage.columns import PASS_AT_K
from maxrl_bench.training import metrics


def test_cosine_of_parallel_opposite_and_zero_vectors() -> None:
    a = torch.tensor([3.0, 4.0])
    assert metrics.cosine(a, 2 * a) == pytest.approx(1.0)
    assert metrics.cosine(a, -a) == pytest.approx(-1.0)
    assert metrics.cosine(a, torch.tensor([-4.0, 3.0])) == pytest.approx(0.0)
    assert math.isnan(metrics.cosine(a, torch.zeros(2)))


def test_the_harder_half_is_rounded_down_and_of_equal_pass_rates_takes_the_first() -> None:
    assert metrics.harder_half(np.array([0.9, 0.1, 0.0, 0.2, 0.8])).tolist() == [False, True, True, False, False]
    assert metrics.harder_half(np.array([0.5, 0.5, 0.5, 0.5])).tolist() == [True, True, False, False]
    assert metrics.harder_half(np.array([0.5])).tolist() == [False]


@pytest.mark.parametrize(("n", "largest"), [(1, 1), (8, 8), (9, 8), (0, 1024)])
def test_pass_at_k_is_told_up_to_all_rollouts(n: int, largest: int) -> None:
    """With k = n it says which instances had any success; of exact pass rates every k is known."""
    rates = np.array([0.0, 1 / (n or 4), 1.0])
    row = metrics.pass_at_k_row(rates, n)
    assert list(row) == [f"pass@{k}" for k in PASS_AT_K if k <= largest]
    if n == largest:
        assert row[f"pass@{n}"] == pytest.approx(2 / 3)
