"""Memoryless policies on finite deterministic worlds: rollouts as flows of counts, exact pass rates, demonstrations.

B instances stand side by side as one graph of states. The policy sees an observation of the state and nothing else, so
the network is run once on each distinct observation of the batch and everything else is table look-up; rollouts that
meet in the same state at the same time are counted together from there on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from maxrl_bench import finite
from maxrl_bench.policies import ObservationPolicy
from maxrl_bench.rollouts import Layer, draw_actions, successes_through

SUCCESS, FAILURE = -1, -2


@dataclass(frozen=True)
class StateGraphs:
    """B instances as deterministic graphs of S states with A actions; a batch in the sense of `tasks.Batch`.

    observations: [O, ...], the distinct observations of the batch; observation_of: [S] int64, each state's;
    successor: [S, A] int64, the next state, or SUCCESS or FAILURE, where the rollout ends; start: [B] int64, one state
    per instance, no two instances sharing a reachable state. A rollout that still runs after `horizon` actions fails.
    """

    observations: torch.Tensor
    observation_of: np.ndarray
    successor: np.ndarray
    start: np.ndarray
    horizon: int

    @property
    def num_instances(self) -> int:
        return len(self.start)

    def log_probs(self, policy: ObservationPolicy, rows: np.ndarray | None = None) -> torch.Tensor:
        """The policy on the distinct observations, or on the given rows of them: [O or len(rows), A]."""
        observations = self.observations if rows is None else self.observations[torch.from_numpy(rows)]
        return policy.log_probs(observations.to(next(policy.parameters()).device))

    def sample(
        self,
        policy: ObservationPolicy,
        num_rollouts: int,
        rng: np.random.Generator,
        *,
        grad: bool = True,
        paths: bool = False,
    ) -> GraphRollouts:
        """N rollouts of every instance; `paths` keeps different histories apart, at up to N times the memory.

        `grad` changes nothing here: gradients come from running the network again on what was visited.
        """
        with torch.no_grad():
            log_probs = self.log_probs(policy).double().log_softmax(1).cpu().numpy()
        probs = finite.probabilities(log_probs)
        states, counts = self.start, np.full(self.num_instances, num_rollouts, np.int64)
        instance = np.arange(self.num_instances)
        layers, at = [], []
        for step in range(self.horizon):
            node, action, count = draw_actions(counts, probs[self.observation_of[states]], rng)
            target = self.successor[states[node], action]
            onward = np.flatnonzero(target >= 0) if step + 1 < self.horizon else np.zeros(0, np.int64)
            if paths:
                states_next, index = target[onward], np.arange(len(onward))
            else:
                states_next, index = np.unique(target[onward], return_inverse=True)
            child = np.full(len(node), -1)
            child[onward] = index
            layers.append(Layer(node, action, count, child, np.where(target == SUCCESS, count, 0)))
            at.append((instance[node], self.observation_of[states[node]]))
            if not len(onward):
                break
            counts = np.bincount(index, weights=count[onward]).astype(np.int64)
            instance_next = np.empty(len(states_next), np.int64)
            instance_next[index] = instance[node[onward]]
            states, instance = states_next, instance_next
        successes = successes_through(layers, rng)
        smooth = None
        if paths:
            taken = [log_probs[seen, layer.action] for (_, seen), layer in zip(at, layers, strict=True)]
            smooth = np.concatenate(_smoothing(layers, successes, taken))
        return GraphRollouts(
            graphs=self,
            policy=policy,
            num_rollouts=num_rollouts,
            layers=layers,
            successes=np.bincount(layers[0].node, weights=successes[0]).astype(np.int64),
            instance=np.concatenate([i for i, _ in at]),
            observation=np.concatenate([seen for _, seen in at]),
            action=np.concatenate([layer.action for layer in layers]),
            count=np.concatenate([layer.count for layer in layers]),
            through=np.concatenate(successes),
            smooth=smooth,
        )

    def log_pass_rate(self, policy: ObservationPolicy) -> torch.Tensor:
        """Exact log p of each instance: [B] float64, differentiable; a finite dynamic programme over time and states.

        Pass rates below 1e-300 are taken as 1e-300, with no gradient.
        """
        probs = torch.softmax(self.log_probs(policy).double(), 1).cpu()
        return torch.log(_PassRate.apply(probs[torch.from_numpy(self.observation_of)], self).clamp_min(1e-300))

    def demonstration_loss(self, policy: ObservationPolicy) -> torch.Tensor:
        """Mean negative log-likelihood of the actions along one shortest solution of each instance."""
        state, action = self.demonstrations
        rows, index = np.unique(self.observation_of[state], return_inverse=True)
        return -self.log_probs(policy, rows)[torch.from_numpy(index), torch.from_numpy(action)].mean()

    @cached_property
    def distances(self) -> np.ndarray:
        """Fewest actions from each state to SUCCESS, [S]; above the horizon where there is no way."""
        far = self.horizon + 1
        distance = np.full(len(self.successor) + 2, far)
        distance[SUCCESS] = 0
        for _ in range(self.horizon):
            closer = np.minimum(1 + distance[self.successor].min(1), far)
            if (closer == distance[:-2]).all():
                break
            distance[:-2] = closer
        return distance[:-2]

    @cached_property
    def demonstrations(self) -> tuple[np.ndarray, np.ndarray]:
        """States and actions along one shortest solution of each instance; of equally short ones, the lowest actions.

        Raises ValueError, naming the row, where an instance has no solution within the horizon.
        """
        if (self.distances[self.start] > self.horizon).any():
            row = int(np.argmax(self.distances[self.start] > self.horizon))
            raise ValueError(f"instance {row} of the batch cannot be solved within {self.horizon} actions")
        best = np.r_[self.distances, self.horizon + 1, 0][self.successor].argmin(1)
        states, visited = self.start, []
        while len(states):
            visited.append(states)
            states = self.successor[states, best[states]]
            states = states[states >= 0]
        demonstrated = np.concatenate(visited)
        return demonstrated, best[demonstrated]


@dataclass(frozen=True)
class GraphRollouts:
    """Rollouts on state graphs (`rollouts.Rollouts`), as E edges (time, state, action) with their counts."""

    graphs: StateGraphs
    policy: ObservationPolicy
    num_rollouts: int
    layers: list[Layer]
    successes: np.ndarray  # [B]
    instance: np.ndarray  # [E]
    observation: np.ndarray  # [E]
    action: np.ndarray  # [E]
    count: np.ndarray  # [E]
    through: np.ndarray  # [E] how many of `count` succeed
    smooth: np.ndarray | None  # [E] see `_smoothing`; only where paths were kept apart

    @property
    def contexts_evaluated(self) -> int:
        return len(self.graphs.observations)

    @property
    def contexts_named(self) -> int:
        return self.actions_taken

    @property
    def actions_taken(self) -> int:
        return int(self.count.sum())

    def surrogate(self, on_success: np.ndarray, on_failure: np.ndarray, smoothing: float = 0.0) -> torch.Tensor:
        weight = on_success[self.instance] * self.through + on_failure[self.instance] * (self.count - self.through)
        if smoothing:
            if self.smooth is None:
                raise ValueError("differential smoothing weighs each rollout by itself: sample with paths=True")
            weight = weight + smoothing * self.smooth
        num_actions = self.graphs.successor.shape[1]
        cells = len(self.graphs.observations) * num_actions
        table = np.bincount(self.observation * num_actions + self.action, weights=weight, minlength=cells)
        scale = self.num_rollouts * len(self.successes)
        # Observations of weight zero take no part: in the forward pass, nor in the backward one.
        return self._weighted(table.reshape(-1, num_actions) / scale, lambda log_probs: log_probs)

    def entropy(self) -> torch.Tensor:
        visits = np.bincount(self.observation, weights=self.count, minlength=len(self.graphs.observations))
        return self._weighted(visits[:, None] / visits.sum(), lambda log_probs: -log_probs.exp() * log_probs)

    def _weighted(self, table: np.ndarray, term: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        rows = np.flatnonzero(table.any(1))
        if not len(rows):
            return torch.zeros(())
        terms = term(self.graphs.log_probs(self.policy, rows))
        return (torch.from_numpy(table[rows]).to(terms) * terms).sum()


def _smoothing(layers: list[Layer], successes: list[np.ndarray], log_probs: list[np.ndarray]) -> list[np.ndarray]:
    """Sum over the rollouts through each edge of their mean log-probability per action; negated for those that succeed.

    Only meaningful on a tree, where each edge has one history: each layer's nodes are the onward edges above, in order.
    """
    total: np.ndarray = np.zeros(1 + int(layers[0].node.max()))
    totals = []
    for layer, log_prob in zip(layers, log_probs, strict=True):
        totals.append(total[layer.node] + log_prob)
        total = totals[-1][layer.child >= 0]
    result: list[np.ndarray] = []
    below: np.ndarray = np.zeros(0)
    for depth in reversed(range(len(layers))):
        layer = layers[depth]
        signed = (layer.count - 2 * successes[depth]) * totals[depth] / (depth + 1)
        signed[layer.child >= 0] = below
        below = np.bincount(layer.node, weights=signed)
        result.append(signed)
    return result[::-1]


class _PassRate(torch.autograd.Function):
    """p of each instance from the action probabilities of each state, [S, A] -> [B], by sparse matrix products.

    Backward is the occupancy formula: dp/dpi(s, a) = sum_t (chance of being in s at time t) * (chance of success within
    the horizon after taking a there), one sweep back for the second factor and one forward for the first.
    """

    @staticmethod
    def forward(ctx, probs, graphs):  # type: ignore[no-untyped-def]
        num_states, num_actions = graphs.successor.shape
        # States S and S+1 stand for FAILURE and SUCCESS, where indices -2 and -1 point; success is where value stays 1.
        columns = graphs.successor % (num_states + 2)
        rows = np.repeat(np.arange(num_states), num_actions)
        entries = (
            np.r_[probs.detach().numpy().ravel(), 1.0],
            (np.r_[rows, num_states + 1], np.r_[columns.ravel(), num_states + 1]),
        )
        step = sparse.csr_array(entries, shape=(num_states + 2, num_states + 2))
        values = [np.r_[np.zeros(num_states + 1), 1.0]]
        for _ in range(graphs.horizon):
            values.append(step @ values[-1])
        ctx.graphs, ctx.columns, ctx.step, ctx.values = graphs, columns, step, values
        return torch.from_numpy(values[-1][graphs.start])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        num_states = len(ctx.columns)
        occupancy = np.zeros(num_states + 2)
        occupancy[ctx.graphs.start] = grad.numpy()
        back = ctx.step.T.tocsr()
        total = np.zeros(ctx.columns.shape)
        for value in ctx.values[-2::-1]:
            total += occupancy[:num_states, None] * value[ctx.columns]
            occupancy = back @ occupancy
            occupancy[num_states:] = 0
        return torch.from_numpy(total), None
