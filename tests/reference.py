"""The textbook loop on state graphs: one rollout after another, one context after another: slow, to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from maxrl_bench.rollouts.graphs import SUCCESS, GraphRollouts, StateGraphs


@dataclass(frozen=True)
class Rollout:
    """One rollout: its instance, the states it stood in, the actions it took there, and its fate."""

    instance: int
    states: tuple[int, ...]
    actions: tuple[int, ...]
    success: bool


def all_rollouts(graphs: StateGraphs, instance: int) -> Iterator[Rollout]:
    """Every rollout that can happen, by brute force."""
    waiting: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((int(graphs.start[instance]),), ())]
    while waiting:
        states, actions = waiting.pop()
        for action, target in enumerate(graphs.successor[states[-1]].tolist()):
            taken = (*actions, action)
            if target < 0 or len(taken) == graphs.horizon:
                yield Rollout(instance, states, taken, target == SUCCESS)
            else:
                waiting.append(((*states, target), taken))


def unfold(rollouts: GraphRollouts) -> list[Rollout]:
    """The N rollouts of every instance one by one, from an engine's result with paths kept apart.

    The edges of a history come together, as many as its rollouts need; so do histories, in the order of their edges.
    """
    graphs, single = rollouts.graphs, []
    edges = iter(zip(rollouts.action, rollouts.count, strict=True))
    histories: list[tuple[int, tuple[int, ...], tuple[int, ...], int]] = [
        (instance, (int(state),), (), rollouts.num_rollouts) for instance, state in enumerate(graphs.start)
    ]
    for instance, states, actions, waiting in histories:  # grows on the way
        while waiting:
            action, count = (int(number) for number in next(edges))
            waiting -= count
            assert waiting >= 0
            taken = (*actions, action)
            target = int(graphs.successor[states[-1], action])
            if target < 0 or len(taken) == graphs.horizon:
                single += [Rollout(instance, states, taken, target == SUCCESS)] * count
            else:
                histories.append((instance, (*states, target), taken, count))
    assert next(edges, None) is None
    return single


def log_probability(graphs: StateGraphs, policy: torch.nn.Module, rollout: Rollout) -> torch.Tensor:
    """Log-probability of a whole rollout, summed over its actions; the network runs once per context."""
    total = torch.zeros(())
    for state, action in zip(rollout.states, rollout.actions, strict=True):
        observation = graphs.observations[graphs.observation_of[state]][None]
        total = total + policy.log_probs(observation)[0, action]  # type: ignore[operator]
    return total


def textbook_surrogate(
    graphs: StateGraphs,
    policy: torch.nn.Module,
    rollouts: list[Rollout],
    on_success: np.ndarray,
    on_failure: np.ndarray,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """mean_b (1/N) sum_j a_j log-probability of rollout j."""
    total = torch.zeros(())
    for rollout in rollouts:
        log_prob = log_probability(graphs, policy, rollout)
        nudge = smoothing * float(log_prob.detach()) / len(rollout.actions)
        b = rollout.instance
        weight = on_success[b] - nudge if rollout.success else on_failure[b] + nudge
        total = total + float(weight) * log_prob
    return total / len(rollouts)
