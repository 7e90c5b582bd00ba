"""One test for each mistake found in other implementations of these objectives."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from objective_cases import all_bound, default_bound, within

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.formula import REQUIRED
from maxrl_bench.objectives.table import OBJECTIVES, bind

pytestmark = pytest.mark.unbiased
COUNTED = [o for o in default_bound(8) if not (o.is_likelihood or o.row.pooled)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_wrong_algorithm_in_silence(name: str) -> None:
    """A knob that the formula does not read is an error, for every objective; so is every knob misspelt."""
    required = next(dict(o.knobs) for o in default_bound(8) if o.name == name)
    for knob in {"order", "k", "gamma", "ddof", "epsilon", "coefficient", "T"} - set(OBJECTIVES[name].knobs):
        with pytest.raises(ValueError, match=f"does not read the knob '{knob}'"):
            bind(name, 8, **required, **{knob: 1})


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.knobs])
def test_every_knob_changes_something(name: str) -> None:
    def signature(knobs: dict[str, float]) -> tuple[object, ...]:
        bound = bind(name, 8, **knobs)
        for batch in ([1, 2], [3, 3]):
            bound = bound.after(np.array(batch))  # most remember nothing
        weights = tuple(np.concatenate(bound.weights(np.arange(9))))
        return weights, bound.smoothing, bound.entropy_bonus

    rules = OBJECTIVES[name].knobs
    others = {knob: within(rule, 4, 8) for knob, rule in rules.items() if rule.default is REQUIRED}
    for knob, rule in rules.items():
        low, above = (within(rule, rule.low + step, 8) for step in (0, 1))
        assert low != above
        assert signature({**others, knob: low}) != signature({**others, knob: above})


@pytest.mark.parametrize("n", [2, 8, 128])
def test_order_n_minus_1_sold_as_order_n(n: int) -> None:
    p = np.array([1e-4, 0.1])
    practice = bind("maxrl_alg1", n)
    assert practice.order == n - 1
    np.testing.assert_allclose(practice.population_weight(p), (1 - (1 - p) ** (n - 1)) / p, rtol=1e-9)
    for name in ("maxrl_eq9", "maxrl_eq10", "maxrl_alg1_exact", "maxrl_uniform"):
        assert bind(name, n).order == n
        np.testing.assert_allclose(bind(name, n).population_weight(p), (1 - (1 - p) ** n) / p, rtol=1e-9)


@pytest.mark.parametrize("n", [128, 1024, 1_000_000])
def test_epsilon_on_hard_prompts(n: int) -> None:
    """One success among N weighs exactly N (or N - 1, or sqrt(N - 1)); an epsilon of 1e-4 takes 1.3 % at N = 128."""
    hard = np.array([1])
    assert bind("maxrl_eq9", n).weights(hard)[0][0] == n
    assert bind("maxrl_alg1", n).weights(hard)[0][0] == n - 1
    np.testing.assert_allclose(bind("grpo", n).weights(hard)[0][0], np.sqrt(n - 1), rtol=1e-15)
    for name in ("maxrl_alg1", "maxrl_eq9", "grpo", "maxrl_alg1_exact"):
        assert not advantages(np.zeros((1, 3)), name).any()  # K = 0 is a branch of its own
    assert bind("maxrl_eq9", 1).weights(hard)[0][0] == 1  # and N = 1 explodes nowhere
    assert bind("maxrl_alg1", 1).weights(hard)[0][0] == 0


def test_scale() -> None:
    """The weights belong into a mean over N rollouts: REINFORCE's success weighs 1, not 1/N, and doubling a group
    doubles no gradient."""
    rewards = np.array([[1.0, 0, 0, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(advantages(rewards, "reinforce"), rewards)
    assert advantages(rewards, "maxrl_eq9").mean() == 1  # the mean of scores over successes
    twice = np.concatenate([rewards, rewards], axis=1)
    for name in ("reinforce", "maxrl_eq9", "maxrl_eq10", "grpo", "mean_baseline", "f_grpo"):
        mean_success = [(advantages(r, name) * r).mean() for r in (rewards, twice)]
        assert mean_success[1] == pytest.approx(mean_success[0], rel=0.1)


@pytest.mark.parametrize("objective", [o for o in COUNTED if o.row.count_based], ids=lambda o: o.name)
def test_axis_mix_up(objective) -> None:  # type: ignore[no-untyped-def]
    """Each row is a group of its own: what other rows hold changes nothing, also where B = N."""
    rng = np.random.default_rng(0)
    rewards = (rng.random((8, 8)) < np.linspace(0, 1, 8)[:, None]).astype(float)
    together = advantages(rewards, objective.name, **objective.knobs)
    for row, alone in zip(rewards, together, strict=True):
        np.testing.assert_array_equal(advantages(row[None], objective.name, **objective.knobs)[0], alone)
    on_success, on_failure = objective.weights(rewards.sum(1).astype(int))
    np.testing.assert_array_equal(together, np.where(rewards == 1, on_success[:, None], on_failure[:, None]))


@pytest.mark.parametrize("make", [np.ones, torch.ones], ids=["numpy", "torch"])
def test_group_order(make) -> None:  # type: ignore[no-untyped-def]
    """A flat vector of rewards does not say whether groups are blocks or interleaved: it is refused."""
    with pytest.raises(ValueError, match=re.escape("rewards must have shape [instances, rollouts], got [8]")):
        advantages(make(8), "grpo")


@pytest.mark.parametrize("bad", [-1.0, 0.5, 2.0, np.nan, 1 + 1e-12])
@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_non_binary_and_negative_rewards(make, bad: float) -> None:  # type: ignore[no-untyped-def]
    rewards = make(np.array([[1.0, 0.0, bad]]))
    with pytest.raises(ValueError, match="exactly 0 or 1"):
        advantages(rewards, "grpo")
    if bad != 0.5:  # which is partial credit, of which this objective has an unbiased form
        with pytest.raises(ValueError, match=re.escape("must lie in [0, 1]")):
            advantages(rewards, "maxrl_alg1")


def test_length_normalisation() -> None:
    """With log-probabilities summed over a rollout's tokens the gradient is w grad p; averaged over them it is not."""
    logits = torch.tensor([[0.4, -0.3], [-0.9, 0.6]], dtype=torch.float64, requires_grad=True)
    # Token 0 ends the rollout after one step; token 1 goes on to a second. Rollouts: (0), (1,0), (1,1). The last fails.
    log_policy = logits.log_softmax(-1)
    log_probs = torch.stack(
        [log_policy[0, 0], log_policy[0, 1] + log_policy[1, 0], log_policy[0, 1] + log_policy[1, 1]]
    )
    lengths, accepted = torch.tensor([1, 2, 2]), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad((log_probs.exp() * accepted).sum(), logits, retain_graph=True)
    groups = torch.tensor(list(itertools.product(range(3), repeat=3)))
    chance = log_probs[groups].sum(1).exp().detach()
    weights = advantages(accepted[groups], "maxrl_eq9")

    def expected(per_rollout: torch.Tensor) -> torch.Tensor:
        surrogate = (weights * per_rollout[groups]).mean(1)
        return torch.autograd.grad((chance * surrogate).sum(), logits, retain_graph=True)[0]

    p = (log_probs.exp() * accepted).sum().item()
    torch.testing.assert_close(expected(log_probs), (1 - (1 - p) ** 3) / p * slope)
    direction = torch.nn.functional.cosine_similarity(expected(log_probs / lengths).flatten(), slope.flatten(), dim=0)
    assert direction < 0.999


def test_ddof_of_the_standard_deviation() -> None:
    rewards = np.array([[1.0, 1, 0, 0, 0, 0]])
    centred = rewards - rewards.mean()
    np.testing.assert_allclose(advantages(rewards, "grpo"), centred / rewards.std(ddof=0))
    np.testing.assert_allclose(advantages(rewards, "grpo", ddof=1), centred / rewards.std(ddof=1))
    np.testing.assert_allclose(advantages(rewards, "f_grpo"), centred / rewards.std(ddof=1) * (1 - 2 / 6))


def test_two_formulas_under_one_name() -> None:
    """Each name has one formula and one reference, and no two names share their weights, knobs apart."""
    assert all(row.paper.strip() for row in OBJECTIVES.values())
    assert len({row.formula for row in OBJECTIVES.values()}) == len(OBJECTIVES)
    tables: dict[tuple[float, ...], str] = {}
    for objective in all_bound([9]):
        if not objective.row.count_based:
            continue
        ends = {
            name: [within(rule, end, 9) for end in (rule.low, rule.high or 9)]
            for name, rule in objective.row.knobs.items()
        }
        if objective.name != "grpo" and any(value in ends[name] for name, value in objective.knobs.items()):
            continue  # families end where others are: order 1 and k = 1 are REINFORCE, order N is equation 9
        table = tuple(np.round(np.concatenate(objective.weights(np.arange(10))), 12))
        assert tables.setdefault(table, objective.name) == objective.name
