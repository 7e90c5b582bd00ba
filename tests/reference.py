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
    """The N rollouts of every instance one by one, from an engine's result with paths kept apart."""
    graphs, layers = rollouts.graphs, rollouts.layers
    found: list[Rollout] = []
    histories = {node: (node, (int(state),), ()) for node, state in enumerate(graphs.start)}
    for layer in layers:
        below = {}
        for node, action, count, child, ended in zip(
            layer.node, layer.action, layer.count, layer.child, layer.ended, strict=True
        ):
            instance, states, actions = histories[int(node)]
            taken = (*actions, int(action))
            if child < 0:
                found += [Rollout(instance, states, taken, bool(ended))] * int(count)
            else:
                below[int(child)] = (instance, (*states, int(graphs.successor[states[-1], action])), taken)
        histories = below
    return found


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
