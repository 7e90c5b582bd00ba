"""docs/objectives.md: every statement names its tests, these exist, and the statements that no other file tests."""

from __future__ import annotations

import ast
import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from documents import ROOT, blocks, prose, read
from objective_cases import all_bound, case_id, default_bound
from scipy.integrate import quad
from scipy.stats import binom

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.binomials import pass_at_k
from maxrl_bench.objectives.population import Scores, least_second_moment, second_moment
from maxrl_bench.objectives.table import Objective, bind

pytestmark = pytest.mark.unbiased
PAGE, PROSE = read("docs/objectives.md"), prose("docs/objectives.md")
NAMED = re.compile(r"`(test_\w+)`")
COUNTED = [o for o in all_bound([6]) if not o.is_likelihood]


def statements(page: str) -> list[str]:
    """The page's statements: what lies between headings and marks, each with the mark that ends it."""
    parts = re.split(r"^#+ .*$", page, flags=re.MULTILINE)[2:]  # behind the title and its introduction
    return [text.strip() for part in parts for text in re.split(r"(?<=\.\])\n", part) if text.strip()]


def test_every_statement_names_tests_that_exist() -> None:
    """A statement ends in a mark `[Tests: ...]`; tests named there are functions of tests/."""
    existing = {
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    marked = statements(PROSE)
    assert len(marked) >= 15
    for statement in marked:
        _, mark, names = statement.rpartition("[Tests: ")
        assert mark, f"names no test: {statement[:80]}"
        assert names.endswith(".]")
        assert "\n\n" not in names
        assert NAMED.findall(names)
        assert set(NAMED.findall(names)) <= existing


def test_theorems_and_bold_statements_have_marks_of_their_own() -> None:
    """So that no statement hides behind the mark of another."""
    for number in re.findall(r"\*\*Theorem (\d)\.\*\*", PAGE):
        (statement,) = [text for text in statements(PROSE) if f"**Theorem {number}.**" in text]
        assert any(f"theorem_{number}_" in name for name in NAMED.findall(statement))
    for statement in statements(PROSE):
        assert len(re.findall(r"^\*\*", statement, flags=re.MULTILINE)) <= 1


@pytest.mark.parametrize("objective", COUNTED, ids=case_id)
def test_the_population_weight_fixes_the_gaps(objective: Objective) -> None:
    """Bernstein's polynomials of degree N-1 at N pass rates are a basis: w_N there gives v back."""
    n = objective.num_rollouts
    p = (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n)) / 2
    basis = binom.pmf(np.arange(n), n - 1, p[:, None])
    coefficients = np.linalg.solve(basis, objective.population_weight(p))
    np.testing.assert_allclose(coefficients, objective.gap(np.arange(n)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("objective", COUNTED, ids=case_id)
def test_no_sampled_objective_is_maximum_likelihood(objective: Objective) -> None:
    """At p = 0 w_N is v_0, which is finite, and 1/p is not; so their ratio goes to 0."""
    assert objective.population_weight(np.array(0.0)) == pytest.approx(objective.gap(np.array([0]))[0])
    assert 1e-12 * float(objective.population_weight(np.array(1e-12))) < 1e-9


@pytest.mark.parametrize(("n", "order"), [(1, 1), (5, 1), (5, 3), (5, 5), (64, 8), (1000, 999)])
def test_order_t_is_eq_9_times_pass_at_t_and_its_series_has_the_same_gaps(n: int, order: int) -> None:
    counts = np.arange(1, n + 1)
    average = bind("maxrl_order", n, order=order)
    np.testing.assert_allclose(average.weights(counts)[0], n / counts * pass_at_k(counts / n, n, order), rtol=1e-12)
    series = bind("maxrl_order_failures", n, order=order)
    np.testing.assert_allclose(series.gap(np.arange(n)), average.gap(np.arange(n)), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 5, 64])
def test_algorithm_1_lacks_one_gap_of_equation_10(n: int) -> None:
    p, others = np.array([1e-6, 0.01, 0.3, 0.9]), np.arange(n)
    published, full = bind("maxrl_alg1", n), bind("maxrl_eq10", n)
    np.testing.assert_allclose(full.gap(others) - published.gap(others), others == 0)
    assert published.gap(np.array([0]))[0] == n - 1
    lost = full.population_weight(p) - published.population_weight(p)
    np.testing.assert_allclose(lost, (1 - p) ** (n - 1), rtol=1e-9, atol=1e-11)
    repaired = bind("maxrl_alg1_exact", n)
    assert repaired.weights(np.array([1]))[0][0] == n
    np.testing.assert_allclose(repaired.gap(others), full.gap(others))


def times_the_least(objective: Objective, p: float) -> float:
    return second_moment(objective, Scores(p)) / least_second_moment(objective, p)


@pytest.mark.parametrize("p", [1e-4, 0.3, 0.99])
def test_noise_without_a_baseline_and_with_the_baseline_one(p: float) -> None:
    """b = 0: 1/q times the least, which is little where p is small; b = 1 (equation 10) the reverse, at either end."""
    n, q = 64, 1 - p
    bare = bind("maxrl_eq9", n)
    squares = float(binom.pmf(np.arange(n), n - 1, p) @ bare.gap(np.arange(n)) ** 2)
    assert second_moment(bare, Scores(p)) == pytest.approx(squares * p / n, rel=1e-9)
    assert times_the_least(bare, p) == pytest.approx(1 / q, rel=1e-9)
    assert (times_the_least(bind("maxrl_eq10", n), p) < times_the_least(bare, p)) == (p > 1 / n)


def test_no_member_is_best_at_every_pass_rate() -> None:
    """p v_J is another baseline at another p, so that a fixed one reaches the least noise at one p at most."""
    for objective in COUNTED:
        if objective.gap(np.arange(6)).any():
            reached = [times_the_least(objective, p) < 1 + 1e-9 for p in (0.2, 0.5, 0.8) if weighs(objective, p)]
            assert sum(reached) <= 1, objective.label


def weighs(objective: Objective, p: float) -> bool:
    return least_second_moment(objective, p) > 0


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (2.0, 0.5), (0.7, 3.0)])
def test_theorem_3_the_posterior_mean_times_the_gap_is_best(alpha: float, beta: float) -> None:
    n, rng = 5, np.random.default_rng(3)
    others = np.arange(n)
    gap = bind("maxrl_eq9", n).gap(others)

    def integrated(baseline: np.ndarray) -> float:
        def noise(p: float) -> float:
            spread = p * (gap - baseline) ** 2 + (1 - p) * baseline**2
            return float(binom.pmf(others, n - 1, p) @ spread) * p ** (alpha - 1) * (1 - p) ** (beta - 1)

        return quad(noise, 0, 1, limit=200)[0]

    chosen = gap * (others + alpha) / (n - 1 + alpha + beta)
    best = integrated(chosen)
    assert all(integrated(chosen + rng.normal(size=n) * 0.05) > best for _ in range(10))


@pytest.mark.parametrize("n", [2, 5, 64])
def test_the_included_members_are_the_posterior_means(n: int) -> None:
    """b_J = -f(J) is v_J J/(N-1) for log-odds-uniform pass rates and v_J (J+1)/(N+1), a constant, for uniform ones."""
    others = np.arange(n)
    for order in {1, 2, n}:
        member = bind("maxrl_order_loo", n, order=order)
        np.testing.assert_allclose(-member.weights(others)[1], member.gap(others) * others / (n - 1), atol=1e-13)
    uniform = bind("maxrl_uniform", n)
    np.testing.assert_allclose(-uniform.weights(others)[1], uniform.gap(others) * (others + 1) / (n + 1))
    np.testing.assert_allclose(-uniform.weights(others)[1], n / (n + 1))
    np.testing.assert_allclose(-bind("maxrl_eq10", n).weights(others)[1], 1)


def test_the_table_of_noise_is_what_the_code_computes() -> None:
    """To the digits shown."""
    n = 64
    columns = [bind("maxrl_eq9", n), bind("maxrl_eq10", n), bind("maxrl_uniform", n), bind("maxrl_alg1", n)]
    columns += [bind("maxrl_order_loo", n, order=n), bind("maxrl_order_failures", n, order=n)]
    rows = re.findall(r"^\| (\d[\d.]*) \|(.*)\|$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 6
    for p, cells in rows:
        for shown, objective in zip(cells.split("|"), columns, strict=True):
            digits = len(shown.strip().partition(".")[2])
            assert f"{times_the_least(objective, float(p)):.{digits}f}" == shown.strip()


def test_raft_over_many_instances_is_reinforce_over_the_mean_pass_rate() -> None:
    rng = np.random.default_rng(0)
    rates = np.tile([0.01, 0.5], 10_000)
    rewards = (rng.random((len(rates), 8)) < rates[:, None]).astype(float)
    weights = advantages(rewards, "raft")
    np.testing.assert_allclose(weights, advantages(rewards, "reinforce") / rewards.mean())
    assert weights.max() == pytest.approx(1 / rates.mean(), rel=0.02)


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_the_example_of_advantages_runs_as_it_stands(make: Any) -> None:
    """Its gradient is the mean over rollouts of weight times the score summed over tokens."""
    (code,) = [block.text for block in blocks("docs/objectives.md", "python") if "advantages(rewards" in block.text]
    rewards = [[1.0] * r + [0.0] * (8 - r) for r in (0, 2, 8)]
    scores = np.random.default_rng(0).normal(size=(3, 8, 4))
    names: dict[str, Any] = {"rewards": make(rewards), "log_probs": make(scores)}
    exec(compile(code, "docs/objectives.md", "exec"), names)
    on_success = bind("maxrl_order", 8, order=8).weights(np.array([0, 2, 8]))[0]
    expected = -sum(
        on_success[i] * rewards[i][j] * scores[i, j].sum() for i, j in itertools.product(range(3), range(8))
    )
    assert float(names["loss"]) == pytest.approx(expected / 24)


@pytest.mark.parametrize("objective", default_bound(8), ids=case_id)
def test_the_page_speaks_of_rows_that_exist(objective: Objective) -> None:
    """And of every row that is no function of the count alone."""
    if not objective.row.count_based:
        assert f"- `{objective.name}`" in PAGE
